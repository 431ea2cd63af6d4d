"""Clients that would rather speak 2026-07-28, which has no sessions: they fall back to `initialize`, and are told."""

import anyio
import fastmcp
import mcp
import pytest

pytestmark = pytest.mark.anyio

PATIENCE = 60


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
