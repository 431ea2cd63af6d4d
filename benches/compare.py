"""FastMCP 3's notification queue and this crate's, side by side: scripts/compare. Each row is done to both, in rounds that
alternate, with a session of the same kind on both sides: an object that takes what it is handed, without any transport.

As `compare.py side`, this is FastMCP's side: the commands of examples/compare.rs, with FastMCP's own functions.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

SESSION = "session"


def read(file):
    """What a session wrote: numbers, in order, and how long each took from its push, in nanoseconds."""
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [int(n) for n, _, _ in lines], [int(came) - int(pushed) for _, pushed, came in lines]


# ---- FastMCP's side


def side(arguments):
    import fastmcp.server.tasks.notifications as notifications
    from docket import Docket

    def notification(n):
        at = datetime.now(timezone.utc).isoformat()
        return {
            "method": "notifications/tasks/status",
            "params": {
                "taskId": str(n),
                "status": "working",
                "statusMessage": str(time.time_ns()),
                "createdAt": at,
                "lastUpdatedAt": at,
                "ttl": 3600000,
            },
        }

    class Writer:
        def __init__(self, file, fail_first, takes):
            self.file, self.to_fail, self.takes = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY), fail_first, takes

        async def send_notification(self, notification):
            if self.to_fail:
                self.to_fail = False
                raise RuntimeError("the pipe is broken")
            if self.takes:
                await asyncio.sleep(self.takes / 1000)
            params = notification.root.params
            os.write(self.file, f"{params.taskId} {params.statusMessage} {time.time_ns()}\n".encode())

    class Counter:
        def __init__(self, takes):
            self.count, self.takes = 0, takes

        async def send_notification(self, notification):
            if self.takes:
                await asyncio.sleep(self.takes / 1000)
            self.count += 1

    async def push(docket, count, pace, start):
        due = time.monotonic()
        for n in range(start, start + count):
            if pace is not None:
                await asyncio.sleep(max(0, due - time.monotonic()))
                due += pace / 1000
            await notifications.push_notification(SESSION, notification(n), docket)

    async def serve(docket, file, fail_first, takes):
        session = Writer(file, fail_first, takes)
        await notifications.ensure_subscriber_running(SESSION, session, docket, None)
        print("ready", flush=True)
        await asyncio.Event().wait()

    async def restart(docket, count):
        for n in range(count):
            await notifications.push_notification(SESSION, notification(n), docket)
        session, begun = Counter(10), time.monotonic()
        key = docket.key(f"fastmcp:notifications:{SESSION}")
        async with docket.redis() as redis:
            while await redis.llen(key) and time.monotonic() - begun < 20:
                await notifications.ensure_subscriber_running(SESSION, session, docket, None)
                await asyncio.sleep(0.015)
                await notifications.stop_subscriber(SESSION)
        print(json.dumps({"sent": session.count}))

    async def expire(docket):
        notifications.NOTIFICATION_TTL_SECONDS = 2
        await push(docket, 5, 1000, 0)
        # Two are younger than two seconds now.
        await asyncio.sleep(0.5)
        session = Counter(0)
        await notifications.ensure_subscriber_running(SESSION, session, docket, None)
        await asyncio.sleep(1)
        print(json.dumps({"sent": session.count}))

    async def many(docket, sessions):
        session = Counter(0)
        for n in range(sessions):
            await notifications.ensure_subscriber_running(f"session-{n}", session, docket, None)
        await asyncio.sleep(1)
        pushed = 0
        for n in range(sessions):
            try:
                await notifications.push_notification(f"session-{n}", notification(n), docket)
                pushed += 1
            except Exception as error:
                print(repr(error), file=sys.stderr)
        deadline = time.monotonic() + 10
        while session.count < sessions and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        print(json.dumps({"pushed": pushed, "came": session.count}))

    async def drain(docket, count):
        for n in range(count):
            await notifications.push_notification(SESSION, notification(n), docket)
        session, begun = Counter(0), time.monotonic()
        await notifications.ensure_subscriber_running(SESSION, session, docket, None)
        while session.count < count:
            await asyncio.sleep(0.001)
        print(json.dumps({"rate": count / (time.monotonic() - begun)}))

    async def run():
        parser = argparse.ArgumentParser()
        parser.add_argument("--redis", required=True)
        commands = parser.add_subparsers(dest="command", required=True)
        command = commands.add_parser("push")
        command.add_argument("count", type=int)
        command.add_argument("--pace", type=float)
        command.add_argument("--from", dest="start", type=int, default=0)
        command = commands.add_parser("serve")
        command.add_argument("file")
        command.add_argument("--fail-first", action="store_true")
        command.add_argument("--takes", type=float, default=0)
        commands.add_parser("restart").add_argument("count", type=int)
        commands.add_parser("expire")
        commands.add_parser("many").add_argument("sessions", type=int)
        commands.add_parser("drain").add_argument("count", type=int)
        given = vars(parser.parse_args(arguments))
        does = {"push": push, "serve": serve, "restart": restart, "expire": expire, "many": many, "drain": drain}[given.pop("command")]
        async with Docket(name="compare", url=given.pop("redis")) as docket:
            await does(docket, **given)
            # Subscribers may still wait, and have nothing to say any more.
            sys.stdout.flush()
            os._exit(0)

    asyncio.run(run())


# ---- The rows


class Side:
    """One of the two, driven by its commands."""

    def __init__(self, name, command, redis, directory):
        self.name, self.redis, self.directory = name, redis, directory
        self.command = [*command, "--redis", redis.url]
        self.files = 0

    def run(self, *arguments):
        """Runs a command to its end, and gives what it said."""
        done = subprocess.run([*self.command, *map(str, arguments)], check=True, capture_output=True, text=True, timeout=300)
        return json.loads(done.stdout) if done.stdout else None

    def file(self):
        self.files += 1
        return self.directory / f"{self.name}-{self.files}"

    def serve(self, file, *arguments):
        """A server process with a subscriber. It is killed by whoever asked for it."""
        command = [*self.command, "serve", str(file), *arguments]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert server.stdout.readline() == "ready\n", f"{self.name} did not start"
        return server


def kill(server):
    server.send_signal(signal.SIGKILL)
    server.wait()


def until(ready, seconds):
    deadline = time.monotonic() + seconds
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.002)


def settled(file, count, seconds=10):
    """What a session got, when it has so many different ones, or nothing more for so long."""
    until(lambda: len(set(read(file)[0])) >= count, seconds)
    return read(file)[0]


def order(side):
    side.run("push", 5, "--from", 1)
    file = side.file()
    server = side.serve(file, "--fail-first")
    got = settled(file, 5)
    kill(server)
    return " ".join(map(str, got))


def restarts(side):
    return 20 - side.run("restart", 20)["sent"]


def kills(side):
    side.run("push", 300)
    file = side.file()
    for n in range(5):
        server = side.serve(file, "--takes", "1")
        until(lambda: len(read(file)[0]) >= 30 * (n + 1), 10)
        kill(server)
    server = side.serve(file, "--takes", "1")
    got = settled(file, 300, 5)
    kill(server)
    return 300 - len(set(got)), len(got) - len(set(got))


def expiry(side):
    return side.run("expire")["sent"]


def move(side):
    old_file, new_file = side.file(), side.file()
    old = side.serve(old_file)
    side.run("push", 5)
    before = len(settled(old_file, 5))
    new = side.serve(new_file)
    time.sleep(0.5)
    side.run("push", 20, "--pace", 10, "--from", 100)
    until(lambda: len(read(old_file)[0]) - before + len(read(new_file)[0]) >= 20, 5)
    (old_got, _), (new_got, _) = read(old_file), read(new_file)
    kill(old)
    kill(new)
    return len(old_got) - before, len(new_got), new_got == sorted(new_got)


def many(sessions):
    def row(side):
        said = side.run("many", sessions)
        return said["pushed"], said["came"]

    return row


def drain(side):
    return side.run("drain", 10_000)["rate"]


def pace(side):
    file = side.file()
    server = side.serve(file)
    time.sleep(0.5)
    side.run("push", 500, "--pace", 10)
    settled(file, 500)
    took = sorted(read(file)[1])
    kill(server)
    return took[len(took) // 2] / 1e6, took[(len(took) - 1) * 99 // 100] / 1e6


def counts(values):
    """One text for what several rounds gave."""
    values = list(map(str, values))
    return values[0] if len(set(values)) == 1 else ", ".join(values)


def rows(sessions):
    yield (
        "5 notifications, the first send fails once: delivered",
        order,
        lambda got: counts(got),
    )
    yield (
        "20 pushed, subscriber stopped and started while sending: lost",
        restarts,
        lambda got: f"{median(got):g}",
    )
    yield (
        "300 pushed, server killed with SIGKILL 5 times while sending: lost",
        kills,
        lambda got: f"{median(lost for lost, _ in got):g}"
        + (f" ({median(again for _, again in got):g} came twice)" if any(again for _, again in got) else ""),
    )
    yield (
        "time to live 2 s, one push a second; half a second after the fifth, a subscriber starts: delivered",
        expiry,
        lambda got: f"{median(got):g}",
    )
    yield (
        "session moved to another process, old subscriber still alive, 20 pushed",
        move,
        lambda got: f"old {median(old for old, _, _ in got):g}, new {median(new for _, new, _ in got):g}"
        + ("" if all(ordered for _, _, ordered in got) else ", out of order"),
    )
    for count in sessions:
        yield (
            f"{count:,} sessions in one process, and from there one push to each",
            many(count),
            lambda got: f"{median(pushed for pushed, _ in got):,g} pushed, {median(came for _, came in got):,g} delivered",
        )
    yield (
        "one session, backlog of 10,000 drained: messages a second",
        drain,
        lambda got: f"{median(got):,.0f}",
    )
    yield (
        "push to deliver at 100 a second: p50, p99",
        pace,
        lambda got: f"{median(p50 for p50, _ in got):.2f} ms, {median(p99 for _, p99 in got):.2f} ms",
    )


class Redis:
    """A server of our own, on a free loopback port."""

    def __init__(self, directory):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/"
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
        self.process = subprocess.Popen(["redis-server", *options, "--maxclients", "30000"], stdout=subprocess.DEVNULL)
        import redis

        self.client = redis.Redis(port=port)
        until(self.answers, 10)

    def answers(self):
        import redis

        try:
            return self.client.ping()
        except redis.ConnectionError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description="FastMCP 3 and mcp-courier, row by row")
    parser.add_argument("courier", help="the built example `compare`")
    parser.add_argument("--rounds", type=int, default=5, help="how often each row is done to each (default: 5)")
    parser.add_argument("--sessions", default="150,1000", help="how many in one process (default: 150,1000)")
    parser.add_argument("--only", default="", help="only rows with this in their text")
    given = parser.parse_args()
    from importlib.metadata import version

    fastmcp = f"FastMCP {version('fastmcp')}"
    with tempfile.TemporaryDirectory() as directory, Redis(directory) as redis:
        python = Side("fastmcp", [sys.executable, __file__, "side"], redis, Path(directory))
        rust = Side("courier", [given.courier], redis, Path(directory))
        info = redis.client.info()
        print(f"{os.cpu_count()} cores, Redis {info['redis_version']}, Python {platform.python_version()}; ", end="")
        print(f"medians of {given.rounds} rounds\n")
        print(f"| what was done | {fastmcp} | mcp-courier |\n| --- | --- | --- |", flush=True)
        for text, does, shown in rows(map(int, given.sessions.split(","))):
            if given.only not in text:
                continue
            got = {python: [], rust: []}
            for _ in range(given.rounds):
                for side in got:
                    redis.client.flushall()
                    got[side].append(does(side))
            print(f"| {text} | {shown(got[python])} | {shown(got[rust])} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["side"]:
        side(sys.argv[2:])
    else:
        main()
