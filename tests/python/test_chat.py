"""The chat as clients of the official Python SDK see it, and of FastMCP 3."""

import json
from contextlib import AsyncExitStack
from datetime import datetime, timezone

import anyio
import fastmcp
import pytest
from clients import connect, until
from mcp.types import TaskStatusNotification

pytestmark = pytest.mark.anyio


async def test_a_thousand_messages_said_at_two_servers_reach_every_member_once_in_order(redis_url, chat):
    urls = [chat("--redis", redis_url), chat("--redis", redis_url)]
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(connect(urls[n % 2])) for n in range(4)]
        for n, member in enumerate(members):
            await member.call("join", room="r", name=f"member {n}")
        for n in range(1000):
            # Neighbours are at different servers.
            said = await members[n % 4].call("say", room="r", text=f"message {n}")
            assert said == {"seq": n + 1, "members": 4}
        expected = [
            {"room": "r", "from": f"member {n % 4}", "text": f"message {n}", "seq": n + 1} for n in range(1000)
        ]
        for member in members:
            await member.until_told(1000)
            assert [params.data for params in member.told] == expected
            assert {(params.level, params.logger) for params in member.told} == {("info", "chat")}
            ids = {params.meta.model_extra["mcp-courier/id"] for params in member.told}
            assert len(ids) == 1000


async def test_members_who_all_speak_at_once_hear_the_same(redis_url, chat):
    urls = [chat("--redis", redis_url), chat("--redis", redis_url)]
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(connect(urls[n % 2])) for n in range(4)]
        for n, member in enumerate(members):
            await member.call("join", room="r", name=f"member {n}")

        async def speak(member):
            for n in range(50):
                await member.call("say", room="r", text=str(n))

        async with anyio.create_task_group() as group:
            for member in members:
                group.start_soon(speak, member)
        for member in members:
            await member.until_told(200)
            assert [params.data["seq"] for params in member.told] == list(range(1, 201))
        heard = [[params.data for params in member.told] for member in members]
        assert all(each == heard[0] for each in heard)


async def test_five_thousand_from_a_worker_arrive_in_order(redis_url, chat, worker):
    async with connect(chat("--redis", redis_url)) as member:
        said = await anyio.to_thread.run_sync(worker, "push-many", member.session_id, "5000")
        assert said.startswith("queued 5000 of 5000")
        await member.until_told(5000)
        assert [params.data["n"] for params in member.told] == list(range(1, 5001))


async def test_a_worker_tells_of_a_task(redis_url, chat, worker):
    """The SDK has a type for it, so it must be as MCP says."""
    now = datetime.now(timezone.utc).isoformat()
    params = {
        "taskId": "7",
        "status": "input_required",
        "createdAt": now,
        "lastUpdatedAt": now,
        "ttl": None,
    }
    async with connect(chat("--redis", redis_url)) as member:
        said = await anyio.to_thread.run_sync(
            worker, "push", member.session_id, "notifications/tasks/status", json.dumps(params)
        )
        assert said.startswith("queued ")
        await until(lambda: member.others)
        (told,) = member.others
        assert isinstance(told, TaskStatusNotification)
        assert (told.params.taskId, told.params.status) == ("7", "input_required")


async def test_whoever_subscribes_to_a_room_is_told_of_changes(redis_url, chat):
    async with connect(chat("--redis", redis_url)) as watcher, connect(chat("--redis", redis_url)) as speaker:
        await watcher.session.subscribe_resource("chat://rooms/r")
        await speaker.call("join", room="r", name="a")
        await speaker.call("say", room="r", text="hello")
        await until(lambda: len(watcher.updated) >= 2)
        assert watcher.updated == ["chat://rooms/r"] * 2
        read = await watcher.session.read_resource("chat://rooms/r")
        assert json.loads(read.contents[0].text) == {"room": "r", "members": ["a"], "seq": 1}


async def test_a_client_of_fastmcp_3_is_told(chat):
    told = []

    async def handle(params):
        told.append(params.data)

    async with fastmcp.Client(chat(), log_handler=handle) as client:
        await client.call_tool("join", {"room": "r", "name": "a"})
        for n in range(20):
            await client.call_tool("say", {"room": "r", "text": str(n)})
        await until(lambda: len(told) >= 20)
        assert [data["seq"] for data in told] == list(range(1, 21))
