"""Drives the page in headless Chromium over its debugging protocol: page.py chromium http://host:port/ screenshots

Only the standard library is used; the protocol's web socket is spoken by hand.
"""

import base64
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

BROWSER, URL, SHOTS = sys.argv[1:4]
PATIENCE = 60.0


class Page:
    """A tab, told what to do through a web socket."""

    def __init__(self, address):
        host, port, path = re.match(r"ws://([^:/]+):(\d+)(/.*)", address).groups()
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.held = b""
        while b"\r\n\r\n" not in self.held:
            self.held += self.socket.recv(65536)
        self.held = self.held.split(b"\r\n\r\n", 1)[1]
        self.number = 0
        self.problems = []

    def read(self, count):
        while len(self.held) < count:
            more = self.socket.recv(1 << 20)
            assert more, "the browser has gone"
            self.held += more
        head, self.held = self.held[:count], self.held[count:]
        return head

    def message(self):
        text = b""
        while True:
            first, length = self.read(2)
            length &= 127
            if length == 126:
                (length,) = struct.unpack(">H", self.read(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self.read(8))
            text += self.read(length)
            if first & 128:
                return json.loads(text)

    def tell(self, method, **params):
        self.number += 1
        text = json.dumps({"id": self.number, "method": method, "params": params}).encode()
        mask = os.urandom(4)
        head = bytes([0x81]) + (
            bytes([0x80 | len(text)]) if len(text) < 126 else bytes([0xFE]) + struct.pack(">H", len(text))
        )
        self.socket.sendall(head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(text)))
        while True:
            message = self.message()
            if message.get("method") == "Runtime.exceptionThrown":
                self.problems.append(message["params"]["exceptionDetails"])
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]

    def value(self, expression):
        result = self.tell("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression):
        start = time.monotonic()
        while not (value := self.value(expression)):
            assert time.monotonic() - start < PATIENCE, f"never: {expression}; {self.value('document.body.innerText')}"
            time.sleep(0.02)
        return value

    def type(self, text):
        self.tell("Input.insertText", text=text)

    def press(self, key, code):
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.tell("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def open(self, url):
        self.tell("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && !!document.querySelector('#units i')")


def scenes(page):
    page.tell("Page.enable")
    page.tell("Runtime.enable")
    page.open(URL)
    assert "built-in" in page.value("document.querySelector('#model').textContent")
    assert page.value("document.querySelectorAll('#units i').length") == 18
    assert page.value("document.querySelectorAll('.bar i').length") > 2
    # The counts of the moment are there at once.
    assert page.value("document.querySelectorAll('#now dd').length") == 6

    # Types, and sees the answer grow token by token.
    page.value("document.querySelector('#max').value = 60")
    page.value("document.querySelector('#text').focus()")
    page.type("One day")
    page.press("Enter", 13)
    last = "(document.querySelector('.message.assistant:last-child > div')?.textContent ?? '')"
    lengths = set()
    start = time.monotonic()
    while page.value("!!document.querySelector('.writing')") or len(lengths) < 2:
        lengths.add(page.value(last + ".length"))
        assert time.monotonic() - start < PATIENCE, lengths
    assert len(lengths) > 5, f"the text has to grow in steps: {sorted(lengths)}"
    assert "tokens at" in page.wait("document.querySelector('.message.assistant small')?.textContent")
    text = page.value(last)
    assert len(text) > 40, text
    # The timeline of the answer is drawn.
    assert "ms" in page.wait("document.querySelector('#span').textContent")

    # Stops an answer with Escape, with the keyboard alone.
    page.value("document.querySelector('#max').value = 300")
    page.type("Once upon a time")
    page.press("Enter", 13)
    page.wait("!!document.querySelector('.writing')")
    page.wait(last + ".length > 10")
    assert page.value("document.querySelector('#send').textContent") == "Stop"
    page.press("Escape", 27)
    page.wait("!document.querySelector('.writing')")
    assert "stopped" in page.value("document.querySelector('.message.assistant:last-child small').textContent")
    page.wait("fetch('/status').then(r => r.json()).then(s => window.busy = s.now.busy) && window.busy === 0")

    # The conversation is there after a reload.
    before = page.value("document.querySelector('#log').innerText")
    page.open(URL)
    assert page.value("document.querySelector('#log').innerText") == before

    for device, width, height, phone in [("desktop", 1280, 800, False), ("phone", 390, 844, True)]:
        page.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )
        assert page.value("document.documentElement.scrollWidth <= innerWidth"), f"{device}: wider than its screen"
        page.value("dispatchEvent(new Event('resize'))")
        for scheme in ("light", "dark"):
            page.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            time.sleep(0.2)
            shot = base64.b64decode(page.tell("Page.captureScreenshot")["data"])
            pathlib.Path(SHOTS, f"{device}-{scheme}.png").write_bytes(shot)
        ground = page.value("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(22, 24, 27)", f"dark: {ground}"
    # On a phone, the plan is behind a button.
    assert page.value("getComputedStyle(document.querySelector('#side')).display") == "none"
    page.value("document.querySelector('#more').click()")
    assert page.value("getComputedStyle(document.querySelector('#side')).display") == "block"
    page.value("document.querySelector('#more').click()")
    page.value("document.querySelector('#new').click()")
    assert page.value("document.querySelectorAll('.message').length") == 0
    assert not page.problems, page.problems


with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
    command += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "--remote-allow-origins=*", "about:blank"]
    browser = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        for line in browser.stderr:
            if found := re.search(r"ws://[^:]+:(\d+)/", line):
                break
        else:
            raise SystemExit("the browser did not start")
        with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/json/list", timeout=PATIENCE) as reply:
            tab = next(tab for tab in json.load(reply) if tab["type"] == "page")
        scenes(Page(tab["webSocketDebuggerUrl"]))
    finally:
        browser.terminate()
        browser.wait()
