"""FastMCP 3's side of the comparison: the commands of testing/benches/measure/compare/courier.rs, with FastMCP's own functions."""

import argparse
import asyncio
import json
import os
import sys
import time
from datetime import datetime, timezone

import fastmcp.server.tasks.notifications as notifications
from docket import Docket

SESSION = "session"

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

async def through(docket, count, queues):
    session = Counter(0)
    for n in range(queues):
        await notifications.ensure_subscriber_running(f"session-{n}", session, docket, None)
    begun = time.monotonic()
    for n in range(count):
        await notifications.push_notification(f"session-{n % queues}", notification(n), docket)
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
    command = commands.add_parser("through")
    command.add_argument("count", type=int)
    command.add_argument("queues", type=int)
    given = vars(parser.parse_args())
    does = {"push": push, "serve": serve, "restart": restart, "expire": expire, "many": many, "drain": drain, "through": through}[given.pop("command")]
    async with Docket(name="compare", url=given.pop("redis")) as docket:
        await does(docket, **given)
        # Subscribers may still wait, and have nothing to say any more.
        sys.stdout.flush()
        os._exit(0)

asyncio.run(run())
