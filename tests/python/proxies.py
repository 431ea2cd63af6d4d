"""Proxies with the configurations of docs/proxies, in front of servers on free ports."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

DOCUMENTED = Path(__file__).parents[2] / "docs" / "proxies"
FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile"}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def program(proxy):
    """Path of a proxy. Caddy is in the virtual environment, as Debian's is too old."""
    for path in (os.path.dirname(sys.executable), None, "/usr/sbin"):
        if found := shutil.which(proxy, path=path):
            return found
    raise RuntimeError(f"{proxy} is missing: scripts/test says what to install")


def command(proxy, directory, file):
    match proxy:
        case "nginx":
            # As root its workers would be another user, who may not enter the directory of a test.
            user = "user root;" if os.geteuid() == 0 else ""
            return [program(proxy), "-p", directory, "-c", file, "-e", "stderr", "-g", f"daemon off; {user}"]
        case "haproxy":
            return [program(proxy), "-db", "-f", file]
        case "caddy":
            return [program(proxy), "run", "--config", file, "--adapter", "caddyfile"]


def as_documented(text):
    return text


def without(pattern):
    """An edit that removes the one place of a configuration that matches."""

    def edit(text):
        text, count = re.subn(pattern, "", text)
        assert count == 1, f"{pattern!r} is {count} times in the configuration"
        return text

    return edit


@contextmanager
def proxied(proxy, ports, directory, edit=as_documented):
    """Runs a proxy as documented, or edited, in front of servers at two ports. Gives its URL."""
    own = free_port()
    text = edit((DOCUMENTED / FILES[proxy]).read_text())
    for documented, port in zip((8000, 8080, 8081), (own, *ports)):
        assert f":{documented}" in text
        text = text.replace(f":{documented}", f":{port}")
    file = directory / FILES[proxy]
    file.write_text(text)
    home = {"HOME": str(directory), "XDG_CONFIG_HOME": str(directory), "XDG_DATA_HOME": str(directory)}
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(command(proxy, directory, file), stdout=log, stderr=log, env=os.environ | home)
        try:
            deadline = time.monotonic() + 20
            while not is_open(own):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{proxy} does not run: {(directory / 'log').read_text()}")
                time.sleep(0.01)
            yield f"http://127.0.0.1:{own}/mcp"
        finally:
            # Its workers end with it.
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
