//! A server of its own for a test, and a client that speaks just enough HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pipo_wgpu::cli::prepare::NO_TUNE_VARIABLE;
use serde_json::Value;

/// What takes longer hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// A running server; it is ended with the test.
pub(super) struct Server {
    /// None where it runs in a thread of this process.
    child: Option<Child>,
    pub(super) address: String,
}

/// An answer.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Server {
    /// Starts `serve` with the arguments of a line, and waits until it listens.
    pub(super) fn start(line: &str) -> Server {
        // What one server has measured and compiled, the next one need not.
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("serving");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipo-wgpu"));
        command.arg("serve").args(line.split_whitespace()).args(["--port", "0"]);
        command.env("PIPO_WGPU_CACHE", cache).env(NO_TUNE_VARIABLE, "1").env("NODEVICE_SELECT", "1");
        command.env_remove("RUST_LOG").env_remove("PIPO_WGPU_API_KEY");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        let address = said.trim().strip_prefix("listening on http://").map(str::to_owned);
        let Some(address) = address else {
            let mut problem = String::new();
            child.stderr.take().unwrap().read_to_string(&mut problem).unwrap();
            panic!("no server: {said}{problem}");
        };
        Server { child: Some(child), address }
    }

    /// A server of this process.
    pub(super) fn at(address: String) -> Server {
        Server { child: None, address }
    }

    /// The process that it is.
    pub(super) fn process(&self) -> u32 {
        self.child.as_ref().map_or_else(std::process::id, Child::id)
    }

    /// Opens a connection and sends a request, whose answer is yet to be read.
    pub(super) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).unwrap();
        stream
    }

    pub(super) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        Reply::read(self.send(method, path, headers, body))
    }

    pub(super) fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], "")
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path, &[], &body.to_string())
    }

    /// The answer to a chat, which has to succeed.
    pub(super) fn chat(&self, body: &Value) -> Value {
        self.post("/v1/chat/completions", body).json(200)
    }

    /// The answer to a completion, which has to succeed.
    pub(super) fn complete(&self, body: &Value) -> Value {
        self.post("/v1/completions", body).json(200)
    }

    /// A number that the server counts.
    pub(super) fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").body;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    /// Waits until a number is what it should be.
    pub(super) fn wait_for(&self, name: &str, value: f64) {
        let start = Instant::now();
        while self.metric(name) != value {
            assert!(start.elapsed() < PATIENCE, "{name} is {}, not {value}", self.metric(name));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal.
    #[cfg(unix)]
    pub(super) fn signal(&self, name: &str) {
        let id = self.process().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits for its end; its exit code and remarks.
    pub(super) fn end(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        let mut child = self.child.take().unwrap();
        while child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "the server still runs");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut remarks = String::new();
        child.stderr.take().unwrap().read_to_string(&mut remarks).unwrap();
        (child.wait().unwrap().code(), remarks)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended as the test wanted.
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Reply {
    pub(super) fn read(stream: TcpStream) -> Reply {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let status = line.split_whitespace().nth(1).unwrap_or_else(|| panic!("no status: {line}")).parse();
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_lowercase(), value.to_owned()));
        }
        let is_chunked =
            headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let mut body = Vec::new();
        match is_chunked {
            true => while chunk(&mut reader, &mut body) {},
            false => drop(reader.read_to_end(&mut body).unwrap()),
        }
        Reply { status: status.unwrap(), headers, body: String::from_utf8(body).unwrap() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body, given the status that it should have.
    pub(super) fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }

    /// The events of a stream, which has to be complete.
    pub(super) fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.body);
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        let lines = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        let mut lines: Vec<&str> = lines.collect();
        assert_eq!(lines.pop(), Some("[DONE]"), "{}", self.body);
        lines.into_iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Reads one chunk; whether there may be more.
fn chunk(reader: &mut impl BufRead, body: &mut Vec<u8>) -> bool {
    let mut length = String::new();
    reader.read_line(&mut length).unwrap();
    let length = usize::from_str_radix(length.trim(), 16).unwrap_or_else(|_| panic!("no chunk: {length:?}"));
    let start = body.len();
    body.resize(start + length, 0);
    reader.read_exact(&mut body[start..]).unwrap();
    reader.read_line(&mut String::new()).unwrap();
    length > 0
}
