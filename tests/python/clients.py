"""Clients of the official Python SDK, which keep all that they are told."""

import math
from contextlib import asynccontextmanager

import anyio
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import ElicitResult

PATIENCE = 60


async def until(reached):
    with anyio.fail_after(PATIENCE):
        while not reached():
            await anyio.sleep(0.01)


class Member:
    """A client, and all that it has been told, in order. `answers` are to elicitations; none has no such capability."""

    def __init__(self, answers=None, on_message=None):
        self.told = []
        self.on_message = on_message
        self.updated = []
        self.others = []
        self.asked = []
        self.messages = []
        self.answers = None if answers is None else list(answers)

    @property
    def received(self):
        """Every message as it came, JSON-RPC and all."""
        return [message.model_dump(by_alias=True, mode="json", exclude_unset=True) for message in self.messages]

    async def handle(self, message):
        notification = getattr(message, "root", message)
        match getattr(notification, "method", None):
            case "notifications/message":
                self.told.append(notification.params)
                if self.on_message:
                    await self.on_message(notification.params)
            case "notifications/resources/updated":
                self.updated.append(str(notification.params.uri))
            case _:
                self.others.append(notification)

    async def elicited(self, context, params):
        self.asked.append(params)
        answer = self.answers.pop(0)
        if callable(answer):
            answer = await answer()
        return ElicitResult(**answer) if isinstance(answer, dict) else answer

    async def call(self, tool, **arguments):
        result = await self.session.call_tool(tool, arguments)
        assert not result.isError, result
        return result.structuredContent

    async def until_told(self, count):
        await until(lambda: len(self.told) >= count)
        # Whatever came twice would be here soon.
        await anyio.sleep(0.2)
        assert len(self.told) == count


@asynccontextmanager
async def connect(url, answers=None, on_message=None, http_client=None):
    member = Member(answers, on_message)
    send, receive = anyio.create_memory_object_stream(math.inf)

    async def record(read):
        async with send:
            async for message in read:
                if not isinstance(message, Exception):
                    member.messages.append(message.message)
                await send.send(message)

    callback = None if answers is None else member.elicited
    async with streamable_http_client(url, http_client=http_client) as (read, write, session_id), anyio.create_task_group() as group:
        group.start_soon(record, read)
        async with ClientSession(
            receive, write, message_handler=member.handle, elicitation_callback=callback
        ) as session:
            member.initialized = await session.initialize()
            member.session, member.session_id = session, session_id()
            yield member
        group.cancel_scope.cancel()
