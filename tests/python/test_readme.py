"""README's "Try it" and the client of examples/README.md, word for word, with the newest client of the official SDK."""

import json
import shlex
import subprocess
import sys
import threading
import time

from readme import block

PATIENCE = 60


class Client:
    """Client of a page as a process of its own."""

    def __init__(self, directory, *args, page="README.md"):
        program = directory / "client.py"
        program.write_text(block("python", "mcp.Client(", page))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, program, *args], **pipes)
        self.printed = []
        threading.Thread(target=self.read, daemon=True).start()
        self.session = self.prints("your session:").split()[-1]

    def read(self):
        for line in self.process.stdout:
            self.printed.append(line)

    def types(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def prints(self, text):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for line in list(self.printed):
                if text in line:
                    return line
            time.sleep(0.01)
        raise AssertionError(f"{text!r} is not in {self.printed}")

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=PATIENCE) == 0


def test_the_client_of_the_readme_speaks_and_hears_at_one_server(tmp_path, chat):
    url = chat()
    alice, bob = Client(tmp_path, "alice", url), Client(tmp_path, "bob", url)
    # Joining has no output of its own: who speaks has joined.
    bob.types("hello")
    bob.prints("'text': 'hello'")
    alice.types("is anybody there?")
    for member in (alice, bob):
        member.prints("'from': 'alice', 'text': 'is anybody there?'")
    alice.end()
    bob.end()


def test_the_clients_of_the_readme_hear_each_other_and_a_worker_in_a_fleet(tmp_path, chat, redis_url, example):
    alice = Client(tmp_path, "alice", chat("--redis", redis_url))
    bob = Client(tmp_path, "bob", chat("--redis", redis_url))
    bob.types("hello")
    bob.prints("'text': 'hello'")
    alice.types("is anybody there?")
    bob.prints("'from': 'alice', 'text': 'is anybody there?'")
    shown = block("sh", "hello from a worker").replace("\\\n", " ")
    command = shlex.split(shown.replace("SESSION", bob.session))
    assert command[:4] == ["cargo", "run", "--example", "worker"]
    said = example("worker", *command[command.index("--") + 1 :])
    assert said.startswith("queued ") and said.endswith("waiting\ndelivered\n"), said
    bob.prints("hello from a worker")
    assert not any("from a worker" in line for line in alice.printed)
    said = example("worker", bob.session + "x", "notifications/message", json.dumps({"level": "info", "data": 1}))
    assert "no server knows this session: check the id" in said
    alice.end()
    bob.end()


def test_the_client_of_the_examples_prints_the_progress_of_a_job(tmp_path, rmcp_server):
    client = Client(tmp_path, rmcp_server, page="examples/README.md")
    for done in (1, 2, 3):
        client.prints(f"{{'job': 'export', 'done': {done}, 'of': 3}}")
    client.process.terminate()
    client.process.wait(timeout=PATIENCE)
