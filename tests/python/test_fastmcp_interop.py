"""FastMCP 3's own code on one side of a queue and this crate's on the other, in every direction."""

import json
import uuid
from contextlib import asynccontextmanager
from datetime import datetime, timezone

import anyio
import fastmcp
import pytest
import redis.asyncio
from clients import connect, until
from docket import Docket
from fastmcp.client.elicitation import ElicitResult
from fastmcp.server.context import Context
from fastmcp.server.tasks.context import TaskContextSnapshot
from fastmcp.server.tasks.keys import build_task_key
from fastmcp.server.tasks.notifications import notification_subscriber_loop, push_notification
from mcp.types import ElicitRequest, TaskStatusNotification
from test_elicitation import ACCEPT, RELATED_TASK, SCHEMA, assert_valid

pytestmark = pytest.mark.anyio

# The docket's name. The prefix of our keys is made of it.
NAME = "n-docket"
PREFIX = ("--prefix", f"{NAME}:fastmcp")


def status(task_id, state="working"):
    """As FastMCP's own code makes it."""
    at = datetime.now(timezone.utc).isoformat()
    return {
        "method": "notifications/tasks/status",
        "params": {"taskId": task_id, "status": state, "createdAt": at, "lastUpdatedAt": at, "ttl": 3600000},
        "_meta": {RELATED_TASK: {"taskId": task_id}},
    }


@pytest.fixture
def rust_chat(chat, redis_url):
    return lambda: chat("--redis", redis_url, *PREFIX)


@pytest.fixture
def rust_worker(worker):
    """Runs a worker while the test goes on."""

    async def run(*args):
        return await anyio.to_thread.run_sync(lambda: worker(*PREFIX, *args))

    return run


@pytest.fixture
async def docket(redis_url):
    async with Docket(name=NAME, url=redis_url) as docket:
        yield docket


@pytest.fixture
async def connection(redis_url):
    async with redis.asyncio.from_url(redis_url, decode_responses=True) as connection:
        yield connection


async def test_what_fastmcp_pushes_reaches_a_client_of_a_rust_server_in_order(rust_chat, docket):
    async with connect(rust_chat()) as member:
        for n in range(100):
            await push_notification(member.session_id, status(f"task-{n}"), docket)
        await until(lambda: len(member.others) >= 100)
        assert [told.params.taskId for told in member.others] == [f"task-{n}" for n in range(100)]
        assert all(isinstance(told, TaskStatusNotification) for told in member.others)
        assert_valid(member.received)


@asynccontextmanager
async def fastmcp_tasks(redis_url, monkeypatch):
    """A FastMCP server with its Docket and its worker in this process, and how to run its task `ask` for a session that is
    somewhere else."""
    monkeypatch.setattr(fastmcp.settings.docket, "name", NAME)
    monkeypatch.setattr(fastmcp.settings.docket, "url", redis_url)
    server = fastmcp.FastMCP("python")

    @server.tool(task=True)
    async def ask(message: str, ctx: Context) -> str:
        outcome = await ctx.elicit(message, response_type=bool)
        return f"{outcome.action} {getattr(outcome, 'data', None)}"

    async with fastmcp.Client(server):
        docket = server._docket
        tool = await server.get_tool("ask")

        async def run(session_id, scope=None):
            task_id = str(uuid.uuid4())
            # What FastMCP does when a client of its own starts a task.
            await TaskContextSnapshot(session_id=session_id).save(docket, scope, task_id, 300)
            key = build_task_key(scope, task_id, "tool", tool.key)
            execution = await tool.add_to_docket(docket, {"message": "Sure?"}, fn_key=tool.key, task_key=key)
            with anyio.fail_after(60):
                return task_id, await execution.get_result()

        yield run


@pytest.mark.parametrize("scope", [None, "client|sub"])
async def test_a_task_of_fastmcp_asks_through_a_rust_server(rust_chat, redis_url, monkeypatch, connection, scope):
    answers = [
        {"action": "accept", "content": {"value": True}},
        {"action": "decline"},
        {"action": "cancel"},
        {"action": "accept", "content": {"value": False}},
    ]
    async with (
        fastmcp_tasks(redis_url, monkeypatch) as run,
        connect(rust_chat(), answers) as member,
        connect(rust_chat()) as unable,
    ):
        outcomes, task_ids = [], []
        for _ in answers:
            task_id, outcome = await run(member.session_id, scope)
            task_ids.append(task_id)
            outcomes.append(outcome)
        assert outcomes == ["accept True", "decline None", "cancel None", "accept False"]
        # FastMCP would wait for an hour.
        _, outcome = await run(unable.session_id, scope)
        assert outcome == "cancel None"

        asked = [message for message in member.received if message.get("method") == "elicitation/create"]
        assert [message["params"]["_meta"] for message in asked] == [
            {RELATED_TASK: {"taskId": task_id}} for task_id in task_ids
        ]
        kinds = assert_valid(member.received)
        assert kinds.count(ElicitRequest) == kinds.count(TaskStatusNotification) == 4
        assert await connection.keys("*:elicit:*") == []


async def test_a_rust_worker_reaches_and_asks_a_client_of_a_fastmcp_server(
    rust_worker, redis_url, monkeypatch, connection
):
    monkeypatch.setattr(fastmcp.settings.docket, "name", NAME)
    monkeypatch.setattr(fastmcp.settings.docket, "url", redis_url)
    server = fastmcp.FastMCP("python")

    @server.tool
    def session_id(ctx: Context) -> str:
        return ctx.session_id

    @server.tool(task=True)
    async def anything() -> str:
        return "done"

    told, asked = [], []
    answers = [ElicitResult(action="accept", content=ACCEPT["content"]), ElicitResult(action="decline", content=None)]

    async def handle(message):
        notification = getattr(message, "root", message)
        if isinstance(notification, TaskStatusNotification) and notification.params.taskId.startswith("rust-"):
            told.append((notification.params.taskId, notification.params.status))

    async def elicited(message, response_type, params, context):
        asked.append(params)
        return answers.pop(0)

    async with fastmcp.Client(server, message_handler=handle, elicitation_handler=elicited) as client:
        session = (await client.call_tool("session_id")).data
        # A FastMCP server begins to look at a session's queue with its first task.
        await (await client.call_tool("anything", task=True)).result()
        for n in range(20):
            await rust_worker("push", session, "notifications/tasks/status", json.dumps(status(f"rust-{n}")["params"]))
        await until(lambda: len(told) >= 20)
        assert told == [(f"rust-{n}", "working") for n in range(20)]

        ask = ("elicit", session, "rust-asks", "Pay?", json.dumps(SCHEMA))
        assert json.loads(await rust_worker(*ask)) == ACCEPT
        assert json.loads(await rust_worker(*ask, "--scope", "client|sub")) == {"action": "decline"}
        assert [(params.message, params.requestedSchema) for params in asked] == [("Pay?", SCHEMA)] * 2
        assert told[20:] == [("rust-asks", "input_required")] * 2
        assert await connection.keys("*:elicit:*") == []


class OneLook:
    """A docket whose queue is looked at once."""

    def __init__(self, docket):
        self.docket, self.looks, self.key = docket, 0, docket.key

    @asynccontextmanager
    async def redis(self):
        self.looks += 1
        if self.looks > 1:
            await anyio.sleep_forever()
        async with self.docket.redis() as connection:
            yield connection


class Failing:
    """A session that cannot send."""

    async def send_notification(self, notification):
        raise RuntimeError("the pipe is broken")


async def test_what_fastmcp_queued_again_is_delivered_by_a_rust_server(rust_chat, docket):
    session_id = None
    async with connect(rust_chat()) as member:
        session_id = str(uuid.uuid4())
        await push_notification(session_id, status("task-1"), docket)
        once = OneLook(docket)
        async with anyio.create_task_group() as group:
            group.start_soon(notification_subscriber_loop, session_id, Failing(), once, None)
            await until(lambda: once.looks == 2)
            group.cancel_scope.cancel()
        async with docket.redis() as connection:
            key = docket.key(f"fastmcp:notifications:{session_id}")
            (queued,) = await connection.lrange(key, 0, -1)
            assert json.loads(queued)["attempt"] == 1
            assert json.loads(queued)["last_error"] == "the pipe is broken"
            # FastMCP's queue of a session that has moved to a Rust server.
            await connection.rename(key, docket.key(f"fastmcp:notifications:{member.session_id}"))
        await push_notification(member.session_id, status("task-2"), docket)
        await until(lambda: len(member.others) >= 2)
        assert [told.params.taskId for told in member.others] == ["task-1", "task-2"]
        assert_valid(member.received)
