"""Trials of clients against the chat: what each hands to its program, and how it returns when its server dies.

`trials.py CLIENTS OUT` runs each client of the file CLIENTS (a JSON object of names and commands), writes the results
to OUT, and prints a table. CHAT_BIN and WORKER_BIN are the built examples. See scripts/client-trials.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from pathlib import Path

import anyio
from balancer import balanced
from conftest import start_chat, start_redis

PAGE = Path(__file__).parents[2] / "docs/clients.md"
ROUNDS, AT_ONCE = 3, 4
COUNT, PAUSE, KILL_AT = 16, 0.25, 5
# Longer than the 300 s after which many HTTP clients give up a body that brings nothing.
SILENCE = 330
NOW = datetime.now(timezone.utc).isoformat()
TASK = {"taskId": "7", "status": "working", "createdAt": NOW, "lastUpdatedAt": NOW, "ttl": None}
# In the order in which they are pushed. The last shows that the session outlived the others.
NOTIFICATIONS = {
    "notifications/message": {"level": "info", "data": {"n": 1}},
    "notifications/progress": {"progressToken": "TOKEN", "progress": 1},
    "notifications/resources/updated": {"uri": "chat://rooms/r"},
    "notifications/resources/list_changed": {},
    "notifications/tools/list_changed": {},
    "notifications/prompts/list_changed": {},
    "notifications/tasks/status": TASK,
    "notifications/elicitation/complete": {"elicitationId": "1"},
    "notifications/example": {"n": 1},
    "notifications/unknown": {"n": 1},
}
LAST = {"level": "info", "data": {"n": 2}}
SCHEMA = {"type": "object", "properties": {"approve": {"type": "boolean"}}}


class Fleet:
    """A Redis, and the chat servers on it."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory()
        self.redis, self.redis_url = start_redis(self.directory.name)
        self.servers = []

    def start(self, listen="127.0.0.1:0"):
        url = start_chat(self.servers, "--redis", self.redis_url, listen=listen)
        return self.servers[-1], url

    def close(self):
        for process in [*self.servers, self.redis]:
            process.kill()
            process.wait()
        self.directory.cleanup()

    async def worker(self, *args):
        command = [os.environ["WORKER_BIN"], "--redis", self.redis_url, *args]
        return (await anyio.run_process(command, check=False)).stdout.decode().strip()


class Client:
    """A client program, and the lines that it printed, each with its time."""

    def __init__(self, process):
        self.process, self.lines, self.noise = process, [], []

    async def read(self, stream, keep):
        pending = b""
        async for data in stream:
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                keep(line.decode(errors="replace"))

    def keep(self, line):
        try:
            self.lines.append((time.monotonic(), json.loads(line)))
        except ValueError:
            self.noise.append(line)

    def all(self, key):
        return [line[key] for _, line in self.lines if key in line]

    def messages(self):
        """Times and numbers of the messages that were shown. Only one hook of a client prints numbers."""
        lines = [(at, line) for at, line in self.lines if line.get("shown") == "notifications/message"]
        return [(at, line["n"]) for at, line in lines if line.get("n")]

    async def call(self):
        before = len(self.all("called"))
        try:
            await self.process.stdin.send(b"call\n")
            await until(lambda: len(self.all("called")) > before, 15)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, TimeoutError):
            return False
        return self.all("called")[-1]


async def until(reached, seconds):
    with anyio.fail_after(seconds):
        while not reached():
            await anyio.sleep(0.01)


def heads(balancer):
    """Times and heads of the requests that open the stream of a session."""
    found = []
    for at, data in balancer.sent:
        for head in re.findall(rb"(?:^|\n)(GET \S+ HTTP/1.1\r\n.*?\r\n)\r\n", data, re.S):
            if b"mcp-session-id:" in head.lower():
                found.append((at, head.decode().lower()))
    return found


@asynccontextmanager
async def started(command, urls):
    """A program with the URL of a balancer as its last argument."""
    async with balanced(urls) as (balancer, url), anyio.create_task_group() as group:
        process = await anyio.open_process([*command, url], env={**os.environ, "PYTHONUNBUFFERED": "1"})
        client = Client(process)
        group.start_soon(client.read, process.stdout, client.keep)
        group.start_soon(client.read, process.stderr, client.noise.append)
        try:
            yield client, balancer
        finally:
            if process.returncode is None:
                process.kill()
            with anyio.CancelScope(shield=True):
                await process.wait()
            group.cancel_scope.cancel()


@asynccontextmanager
async def connected(command, urls):
    """A client program of the trials, with its stream open where it opens one."""
    async with started(command, urls) as (client, balancer):
        await until(lambda: client.all("ready"), 60)
        with anyio.move_on_after(5):
            while not heads(balancer):
                await anyio.sleep(0.01)
        await anyio.sleep(0.5)
        yield client, balancer


async def trial_of_kinds(command, fleet):
    """Pushes one notification of each kind, and asks in both modes."""
    server, url = fleet.start()
    async with connected(command, [url]) as (client, balancer):
        result = {
            "version": [re.findall(r"mcp-protocol-version: ([0-9-]+)", head) for _, head in heads(balancer)],
            "opens stream": bool(heads(balancer)),
            "calls": await client.call(),
        }
        sent = b"".join(data for _, data in balancer.sent)
        token = (re.findall(rb'"progressToken":\s*("?[\w-]+"?)', sent) or [b'"none"'])[-1].decode()
        session = list(balancer.sessions)[-1]
        settled, after = {}, {}
        for method, params in [*NOTIFICATIONS.items(), ("notifications/message", LAST)]:
            noise, errors = len(client.noise), len(client.all("error"))
            params = json.dumps(params).replace('"TOKEN"', token)
            said = await fleet.worker("push", session, method, params, "--receipt-wait", "6")
            settled[method] = said.splitlines()[-1] if said else ""
            await anyio.sleep(0.3)
            after[method] = [line[:300] for line in client.noise[noise:] + client.all("error")[errors:]]
        result["confirmed"] = {method: said.startswith("delivered") for method, said in settled.items()}
        shown = [(line["shown"], line["hook"]) for _, line in client.lines if "shown" in line]
        result["shown"] = {method: sorted({hook for each, hook in shown if each == method}) for method in NOTIFICATIONS}
        result["outlived"] = 2 in [n for _, n in client.messages()]
        result["noise"] = {method: lines[:4] for method, lines in after.items() if lines}
        form = await fleet.worker("elicit", session, "task-7", "Pay?", json.dumps(SCHEMA), "--timeout", "8")
        page = ["--url", "https://example.com/pay"]
        url = await fleet.worker("elicit", session, "task-8", "Pay there", *page, "--timeout", "8")
        result["elicitation"] = {"asked": client.all("asked"), "form": form, "url": url}
        return result


async def trial_of_death(command, fleet, end, alone_for=None):
    """Ends the client's server while a worker pushes. Another one lives, or starts after `alone_for` seconds."""
    server, url = fleet.start()
    other, other_url = fleet.start()
    if alone_for is not None:
        other.kill()
        other.wait()
    async with connected(command, [url, other_url]) as (client, balancer):
        session = list(balancer.sessions)[-1]
        # Answers to calls may say another delay than the stream.
        await client.call()
        async with anyio.create_task_group() as group:
            for n in range(1, COUNT + 1):
                if n == KILL_AT:
                    await anyio.sleep(0.1)
                    errors = len(client.all("error"))
                    ended, opened = time.monotonic(), len(heads(balancer))
                    end(server)
                    if alone_for is not None:

                        async def start_later():
                            await anyio.sleep(alone_for)
                            fleet.start(listen=re.search(r"//([^/]+)/", other_url)[1])

                        group.start_soon(start_later)
                params = json.dumps({"level": "info", "data": {"n": n}})
                await fleet.worker("push", session, "notifications/message", params)
                await anyio.sleep(PAUSE)
        with anyio.move_on_after(15):
            while len({n for _, n in client.messages()}) < COUNT:
                await anyio.sleep(0.05)
        await anyio.sleep(1)
        numbers = [n for _, n in client.messages()]
        reopened = [(at, head) for at, head in heads(balancer)[opened:] if at > ended]
        first = next((at for at, _ in client.messages() if at > ended + 0.05), None)
        errors = client.all("error")[errors:]
        return {
            "first GET after": round(reopened[0][0] - ended, 2) if reopened else None,
            "GETs": [(round(at - ended, 2), "last-event-id" in head) for at, head in reopened][:8],
            "message after": round(first - ended, 2) if first else None,
            "shown": len(set(numbers)),
            "repeats": len(numbers) - len(set(numbers)),
            "in order": list(dict.fromkeys(numbers)) == sorted(set(numbers)),
            "errors": errors[:6],
            "calls": [await client.call(), await client.call()],
            "back": len(set(numbers)) == COUNT if numbers else await asked(client, fleet, session),
        }


async def asked(client, fleet, session):
    """Returns whether a question of a worker reaches the client."""
    await fleet.worker("elicit", session, "task-9", "Pay?", json.dumps(SCHEMA), "--timeout", "4")
    return bool(client.all("asked"))


def recipe(name):
    """The code of docs/clients.md for a client, as a program that takes the URL as its argument."""
    marker = rf"<!-- (?:[^\n]*, )?{name}(?:, [^\n]*)? -->"
    found = re.search(rf"^{marker}\n```(\w+)\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    if not found:
        return None
    language, code = found.groups()
    if language == "js":
        return ".mjs", f"const url = process.argv[2];\n{code}"
    body = code.replace("...", "await anyio.sleep_forever()").replace("\n", "\n    ")
    return ".py", f"import sys, anyio\nasync def main(url):\n    {body}\nanyio.run(main, sys.argv[1])\n"


async def trial_of_recipe(command, fleet, name):
    """Returns whether the code of the page prints what a worker pushes."""
    if not (code := recipe(name)):
        return None
    suffix, text = code
    _, url = fleet.start()
    # Modules are looked for beside the file that imports them.
    program = Path(command[1]).parent if suffix == ".mjs" else Path(fleet.directory.name)
    program = program / f"recipe-{name.replace(' ', '-')}{suffix}"
    program.write_text(text)
    async with started([command[0], program], [url]) as (client, balancer):
        try:
            await until(lambda: heads(balancer), 60)
            params = json.dumps({"level": "info", "data": "said by a worker"})
            await fleet.worker("push", list(balancer.sessions)[-1], "notifications/message", params)
            await until(lambda: any("said by a worker" in line for line in client.noise), 10)
        except TimeoutError:
            return client.noise[-5:]
        return True


async def trial_of_silence(command, fleet):
    """Pushes a notification after a time in which nothing was sent but comments."""
    _, url = fleet.start()
    async with connected(command, [url]) as (client, balancer):
        session = list(balancer.sessions)[-1]
        await anyio.sleep(SILENCE)
        await fleet.worker("push", session, "notifications/message", json.dumps(LAST))
        await anyio.sleep(5)
        served = bool(client.messages()) or await asked(client, fleet, session)
        return {"served": served, "GETs": len(heads(balancer))}


ENDS = {
    "killed": (subprocess.Popen.kill, None, ROUNDS),
    "stopped": (subprocess.Popen.terminate, None, 1),
    "gone for 2 s": (subprocess.Popen.kill, 2, 1),
    "gone for 8 s": (subprocess.Popen.kill, 8, 1),
}


async def with_fleet(trial, command, *args):
    fleet = Fleet()
    try:
        return await trial(command, fleet, *args)
    finally:
        fleet.close()


async def try_client(name, command, result):
    result["recipe"] = await with_fleet(trial_of_recipe, command, name)
    result["kinds"] = await with_fleet(trial_of_kinds, command)
    for label, (end, alone_for, rounds) in ENDS.items():
        result[label] = [await with_fleet(trial_of_death, command, end, alone_for) for _ in range(rounds)]


def cell(rounds):
    """Text for the table: the median time without a message, or what happened instead."""
    back = [each for each in rounds if each["back"]]
    if len(back) < len(rounds):
        return f"back in {len(back)} of {len(rounds)}"
    times = [each["message after"] or each["first GET after"] for each in back]
    repeats = sum(each["repeats"] for each in back)
    named = all(each["GETs"][-1][1] for each in back)
    ordered = all(each["in order"] for each in back)
    notes = {", without id": not named, f", {repeats} repeats": repeats, ", unordered": not ordered}
    return f"{statistics.median(times):.1f} s{''.join(note for note, holds in notes.items() if holds)}"


def table(results):
    heading = ["client", "opens the stream", "does not show", *ENDS, f"after {SILENCE} s of silence", "code of page"]
    yield f"| {' | '.join(heading)} |"
    yield "| --- " * len(heading) + "|"
    for name, result in results.items():
        if "failed" in result:
            yield f"| {name} | failed: {result['failed']} |"
            continue
        kinds, silence = result["kinds"], result["silence"]
        hidden = [method.removeprefix("notifications/") for method, hooks in kinds["shown"].items() if not hooks]
        ends = [cell(result[end]) for end in ENDS]
        cells = [name, "yes" if kinds["opens stream"] else "no", ", ".join(hidden), *ends]
        cells.append("served" if silence["served"] else "not served")
        cells.append({"True": "works", "None": ""}.get(str(result["recipe"]), "fails"))
        yield f"| {' | '.join(cells)} |"


async def main(clients, out, *only):
    commands = json.loads(Path(clients).read_text())
    commands = {name: command for name, command in commands.items() if not only or name in only}
    results, limit = {name: {} for name in commands}, anyio.CapacityLimiter(AT_ONCE)

    async def one(name, command):
        async with limit:
            try:
                await try_client(name, command, results[name])
            except Exception as error:
                results[name]["failed"] = repr(error)
            Path(out).write_text(json.dumps(results, indent=1))
            print(f"{name}: {results[name].get('failed', 'done')}", file=sys.stderr, flush=True)

    async def silence(name, command):
        results[name]["silence"] = await with_fleet(trial_of_silence, command)

    async with anyio.create_task_group() as group:
        for name, command in commands.items():
            group.start_soon(one, name, command)
        for name, command in commands.items():
            group.start_soon(silence, name, command)
            # Many programs that begin at once would be slow.
            await anyio.sleep(5)
    Path(out).write_text(json.dumps(results, indent=1))
    for line in table(results):
        print(line)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
