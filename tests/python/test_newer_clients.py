"""Clients that would rather speak 2026-07-28, which has no sessions: they fall back to `initialize`, and are told."""

import json
from subprocess import Popen

import anyio
import fastmcp
import mcp
import pytest
from balancer import balanced
from failover import ACCEPT, QUESTION, tell_while_servers_are_killed, tell_while_servers_end

pytestmark = pytest.mark.anyio

PATIENCE = 60
KINDS = {
    "mcp": lambda url, handle: mcp.Client(url, logging_callback=handle),
    "fastmcp": lambda url, handle: fastmcp.Client(url, log_handler=handle),
}


@pytest.mark.parametrize("kind", ["mcp", "fastmcp"])
async def test_a_newer_client_falls_back_to_initialize_and_is_told(kind, redis_url, chat):
    told = []

    async def handle(params):
        told.append(params.data)

    url = chat("--redis", redis_url)
    clients = {
        "mcp": lambda: mcp.Client(url, logging_callback=handle),
        "fastmcp": lambda: fastmcp.Client(url, log_handler=handle),
    }
    async with clients[kind]() as client:
        if kind == "mcp":
            assert client.protocol_version == "2025-11-25"
        await client.call_tool("join", {"room": "r", "name": "a"})
        for n in range(50):
            await client.call_tool("say", {"room": "r", "text": str(n)})
        with anyio.fail_after(PATIENCE):
            while len(told) < 50:
                await anyio.sleep(0.01)
        assert [data["seq"] for data in told] == list(range(1, 51))


async def test_g2_newer_clients_go_on_at_other_servers_and_lose_nothing(fleet, worker):
    await tell_while_servers_end(KINDS, fleet, worker, 1_500, [Popen.terminate, Popen.kill])


async def test_g3_nothing_comes_twice_to_newer_clients_while_five_servers_are_killed(fleet, worker):
    await tell_while_servers_are_killed(KINDS, fleet, worker)


async def test_g2_a_newer_client_whose_server_was_killed_is_asked_again_by_another(fleet, worker):
    servers, urls = fleet
    asked = []

    async def answer(context, params):
        asked.append(params.message)
        if len(asked) == 1:
            servers[0].kill()
            # The user has not made up his mind.
            await anyio.sleep_forever()
        return mcp.types.ElicitResult(**ACCEPT)

    async with balanced(urls) as (balancer, url), mcp.Client(url, elicitation_callback=answer):
        session = next(iter(balancer.sessions))
        said = await anyio.to_thread.run_sync(worker, "elicit", session, *QUESTION)
        assert (json.loads(said), asked) == (ACCEPT, ["Pay?", "Pay?"])
