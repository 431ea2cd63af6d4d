"""Clients of the official Python SDK and of FastMCP 3 go on at another server."""

from subprocess import Popen

import fastmcp
import pytest
from clients import connect
from failover import tell_while_servers_end

pytestmark = pytest.mark.anyio


KINDS = {
    "mcp": lambda url, handle: connect(url, on_message=handle),
    "fastmcp": lambda url, handle: fastmcp.Client(url, log_handler=handle),
}


async def test_g2_two_killed_servers_lose_nothing(fleet, worker):
    await tell_while_servers_end(KINDS, fleet, worker, 10_000, [Popen.kill])


async def test_g2_a_rolling_restart_loses_nothing(fleet, worker):
    await tell_while_servers_end(KINDS, fleet, worker, 3_000, [Popen.terminate])
