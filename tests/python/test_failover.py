"""Clients of the official Python SDK and of FastMCP 3 go on at another server."""

import json
from subprocess import Popen

import anyio
import fastmcp
import pytest
from balancer import balanced
from clients import connect
from failover import ACCEPT, QUESTION, tell_while_servers_are_killed, tell_while_servers_end

pytestmark = pytest.mark.anyio

KINDS = {
    "mcp": lambda url, handle: connect(url, on_message=handle),
    "fastmcp": lambda url, handle: fastmcp.Client(url, log_handler=handle),
}


async def test_g2_two_killed_servers_lose_nothing(fleet, worker):
    await tell_while_servers_end({"mcp": KINDS["mcp"]}, fleet, worker, 10_000, [Popen.kill, Popen.kill])


async def test_g2_a_rolling_restart_and_a_killed_server_lose_nothing(fleet, worker):
    await tell_while_servers_end(KINDS, fleet, worker, 1_500, [Popen.terminate, Popen.kill])


async def test_g3_nothing_comes_twice_while_five_servers_are_killed(fleet, worker):
    await tell_while_servers_are_killed(KINDS, fleet, worker)


async def test_g2_an_answer_reaches_the_worker_though_the_server_that_asked_was_killed(fleet, worker):
    servers, urls = fleet

    async def answer():
        servers[0].kill()
        servers[0].wait()
        return ACCEPT

    async with balanced(urls) as (_, url), connect(url, [answer]) as member:
        said = await anyio.to_thread.run_sync(worker, "elicit", member.session_id, *QUESTION)
        assert json.loads(said) == ACCEPT
