"""Clients of the trials in Python. `trial_client.py KIND URL` prints each thing that the client KIND hands to its
program, as a line of JSON. A line on standard input makes it call a tool. See scripts/client-trials."""

import json
import logging
import sys
from contextlib import asynccontextmanager

import anyio
from mcp.client import streamable_http


def say(**line):
    print(json.dumps(line, default=str), flush=True)


async def log(params, *_):
    say(shown="notifications/message", hook="log", n=params.data["n"])


async def message(message):
    notification = getattr(message, "root", message)
    if method := getattr(notification, "method", None):
        say(shown=method, hook="message")
    else:
        say(error=repr(message))


async def progress(progress, *_):
    say(shown="notifications/progress", hook="progress", n=progress)


def accept(params):
    mode = getattr(params, "mode", None) or "form"
    say(asked=mode)
    return {"action": "accept", "content": {"approve": True} if mode == "form" else None}


async def elicit_for_mcp(_context, params, *_):
    from mcp.types import ElicitResult

    return ElicitResult(**accept(params))


async def elicit_for_fastmcp(_message, _type, params, _context):
    from fastmcp.client.elicitation import ElicitResult

    return ElicitResult(**accept(params))


def extension():
    """Extension of `mcp` 2 that receives methods which its version of MCP does not define."""
    from mcp.client.extension import ClientExtension, NotificationBinding
    from pydantic import BaseModel

    class Params(BaseModel, extra="allow"):
        pass

    def binding(method):
        async def show(_params):
            say(shown=method, hook="extension")

        return NotificationBinding(method=method, params_type=Params, handler=show)

    class Extension(ClientExtension):
        identifier = "com.example/trial"

        def notifications(self):
            return [binding("notifications/tasks/status"), binding("notifications/example")]

    return Extension()


@asynccontextmanager
async def mcp1(url):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    callbacks = {"logging_callback": log, "message_handler": message, "elicitation_callback": elicit_for_mcp}
    async with streamable_http_client(url) as (read, write, _), ClientSession(read, write, **callbacks) as session:
        await session.initialize()
        yield lambda: session.call_tool("session_id", progress_callback=progress)


@asynccontextmanager
async def mcp2(url):
    import mcp

    callbacks = {"logging_callback": log, "message_handler": message, "elicitation_callback": elicit_for_mcp}
    async with mcp.Client(url, **callbacks, extensions=[extension()]) as client:
        yield lambda: client.call_tool("session_id", progress_callback=progress)


@asynccontextmanager
async def fastmcp(url):
    import fastmcp

    handlers = {"log_handler": log, "message_handler": message, "elicitation_handler": elicit_for_fastmcp}
    if fastmcp.__version__.startswith("4."):
        handlers["extensions"] = [extension()]
    async with fastmcp.Client(url, progress_handler=progress, **handlers) as client:
        yield lambda: client.call_tool("session_id")


@asynccontextmanager
async def mcp_use(url):
    from mcp_use import MCPClient

    callbacks = {"logging_callback": log, "message_handler": message, "elicitation_callback": elicit_for_mcp}
    client = MCPClient({"mcpServers": {"chat": {"url": url}}}, **callbacks)
    session = await client.create_session("chat")
    try:
        yield lambda: session.call_tool("session_id", {})
    finally:
        await client.close_all_sessions()


@asynccontextmanager
async def langchain(url):
    from langchain_mcp_adapters.callbacks import Callbacks
    from langchain_mcp_adapters.client import MultiServerMCPClient
    from langchain_mcp_adapters.tools import load_mcp_tools

    callbacks = Callbacks(on_logging_message=log, on_progress=progress, on_elicitation=elicit_for_mcp)
    chat = {"transport": "http", "url": url, "session_kwargs": {"message_handler": message}}
    async with MultiServerMCPClient({"chat": chat}, callbacks=callbacks).session("chat") as session:
        tools = {tool.name: tool for tool in await load_mcp_tools(session, callbacks=callbacks, server_name="chat")}
        yield lambda: tools["session_id"].ainvoke({})


@asynccontextmanager
async def pydantic_ai(url):
    from pydantic_ai.mcp import MCPToolset

    handlers = {"log_handler": log, "message_handler": message, "elicitation_handler": elicit_for_fastmcp}
    async with MCPToolset(url, progress_handler=progress, **handlers) as toolset:
        yield lambda: toolset.direct_call_tool("session_id", {})


@asynccontextmanager
async def openai_agents(url):
    from agents.mcp import MCPServerStreamableHttp

    async def log_or_message(notification):
        if getattr(notification, "method", None) == "notifications/message":
            await log(notification.params)
        else:
            await message(notification)

    async with MCPServerStreamableHttp(params={"url": url}, message_handler=log_or_message) as server:
        yield lambda: server.call_tool("session_id", {})


KINDS = {
    "mcp 1": mcp1,
    "mcp 2": mcp2,
    "fastmcp 3": fastmcp,
    "fastmcp 4": fastmcp,
    "mcp-use": mcp_use,
    "langchain": langchain,
    "pydantic-ai": pydantic_ai,
    "openai-agents": openai_agents,
}


# A KIND that ends so opens its stream again however often that failed. `mcp` has a constant for it, and no option.
PATIENT = ", patient"


async def main(kind, url):
    if kind.endswith(PATIENT):
        streamable_http.MAX_RECONNECTION_ATTEMPTS = 1_000
    async with KINDS[kind.removesuffix(PATIENT)](url) as call:
        say(ready=True)
        async for _ in anyio.wrap_file(sys.stdin):
            try:
                with anyio.fail_after(10):
                    await call()
                say(called=True)
            except Exception as error:
                say(called=False, error=repr(error))


# Warnings of the client show how it takes what it does not know.
logging.basicConfig(level=logging.WARNING, format="%(name)s %(levelname)s %(message)s")
anyio.run(main, *sys.argv[1:])
