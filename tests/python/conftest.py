"""A Redis, servers and workers of the test's own. CHAT_BIN is the built example, and WORKER_BIN the worker of the tests in
`testing/src/bin`: see scripts/python-tests."""

import os
import socket
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio"


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def start_redis(directory):
    # A port that is free now may be another's in a moment: then Redis ends, and another one is tried.
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
        process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        while process.poll() is None:
            if answers(port) and process.poll() is None:
                return process, f"redis://127.0.0.1:{port}/"
            time.sleep(0.01)
    raise RuntimeError("no Redis could be started")


@pytest.fixture
def redis_url(tmp_path):
    process, url = start_redis(tmp_path)
    yield url
    process.kill()
    process.wait()


def start_chat(servers, *args, listen="127.0.0.1:0"):
    command = [os.environ["CHAT_BIN"], "--listen", listen, *args]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    servers.append(server)
    said = server.stdout.readline().strip()
    assert said.startswith("listening on "), said
    return said.removeprefix("listening on ")


@pytest.fixture
def chat():
    """Starts chat servers, and gives their URLs. The attribute `servers` has their processes."""
    servers = []
    start = partial(start_chat, servers)
    start.servers = servers
    yield start
    for server in servers:
        server.terminate()
    # With clients gone, each ends at once and well.
    assert [server.wait(timeout=20) for server in servers] == [0] * len(servers)


@pytest.fixture
def fleet(redis_url):
    """Six chat servers that may die: their processes and their URLs."""
    servers = []
    urls = [start_chat(servers, "--redis", redis_url) for _ in range(6)]
    yield servers, urls
    for server in servers:
        server.kill()
        server.wait()


@pytest.fixture
def worker(redis_url):
    """Runs the worker of the tests to its end, and returns its output."""

    def run(*args):
        command = [os.environ["WORKER_BIN"], "--redis", redis_url, *args]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout

    return run


@pytest.fixture
def example(redis_url):
    """Runs a short example to its end, and returns its output."""

    def run(name, *args):
        command = [Path(os.environ["CHAT_BIN"]).with_name(name), *args]
        env = {**os.environ, "REDIS_URL": redis_url}
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60, env=env).stdout

    return run


@pytest.fixture
def rmcp_server():
    """Starts the example `rmcp_server` on a free port, and returns its URL."""
    command = [Path(os.environ["CHAT_BIN"]).with_name("rmcp_server"), "127.0.0.1:0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = server.stdout.readline().strip()
    assert said.startswith("listening on "), said
    yield said.removeprefix("listening on ")
    server.terminate()
    assert server.wait(timeout=20) == 0
