"""Answers a file of requests on many machines: Ray Data actors, each with a server of its own.

    ray_batch.py questions.jsonl answers [--model ./my-model] [--workers 2] [--serve "--vram 6GiB --parallel 8"]

Needs `pip install "ray[data]"`, and `pipo-wgpu` in the PATH of every machine. Requests are those of
`pipo-wgpu batch`; a folder of JSON files with custom_id, status_code and body comes out. Each actor starts one server and asks it for
as many texts at once as it has slots. With several GPUs in one machine, give each actor one by
`ray_remote_args={"num_gpus": 1}`.
"""

import argparse
import concurrent.futures
import json
import re
import shlex
import subprocess
import tempfile
import urllib.error
import urllib.request


class Server:
    """One server, and its clients."""

    def __init__(self, model, options):
        command = ["pipo-wgpu", "serve", *([model] if model else []), "--port", "0", *shlex.split(options)]
        # A file takes what a pipe that nobody reads would not.
        remarks = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=remarks, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        if not found:
            remarks.seek(0)
            last = remarks.read().strip().rpartition("\n")[2]
            raise RuntimeError(f"the server did not start: {shlex.join(command)}: {last}")
        self.url = found[0]

    def __del__(self):
        self.process.terminate()

    def answer(self, line):
        request = json.loads(line)
        body = json.dumps(request["body"]).encode()
        ask = urllib.request.Request(self.url + request["url"], body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(ask) as reply:
                status, text = reply.status, reply.read()
        except urllib.error.HTTPError as problem:
            status, text = problem.code, problem.read()
        return request["custom_id"], status, text.decode()

    def __call__(self, batch):
        lines = list(batch["text"])
        with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, len(lines))) as clients:
            answers = list(clients.map(self.answer, lines))
        return {name: list(column) for name, column in zip(("custom_id", "status_code", "body"), zip(*answers))}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("questions")
    parser.add_argument("answers")
    parser.add_argument("--model", default="")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16, help="requests that an actor has at once")
    parser.add_argument("--serve", default="--parallel 8", help="further options of `pipo-wgpu serve`")
    args = parser.parse_args()

    import ray

    answers = ray.data.read_text(args.questions).map_batches(
        Server,
        fn_constructor_args=(args.model, args.serve),
        compute=ray.data.ActorPoolStrategy(size=args.workers),
        batch_size=args.batch,
        # A server that does not start is not tried for ever.
        max_restarts=2,
        # The work is on the GPU; reading and writing files need processors as well.
        num_cpus=0.1,
    )
    answers.write_json(args.answers)


if __name__ == "__main__":
    main()
