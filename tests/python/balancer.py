"""A small balancer on loopback: it leads to the first server that takes a connection."""

import re
import time
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import anyio

GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError)


class Balancer:
    """What a server left unanswered is brought to the next, as balancers do that may repeat a request."""

    def __init__(self, urls):
        self.servers = [(url.hostname, url.port) for url in map(urlsplit, urls)]
        # The ids that the servers gave, in order.
        self.sessions = {}
        # Bytes that clients sent, each piece with its time.
        self.sent = []

    async def connect(self):
        for host, port in self.servers:
            with suppress(OSError):
                return await anyio.connect_tcp(host, port)

    async def serve(self, client):
        server, unanswered, sending = None, bytearray(), anyio.Lock()

        async def requests():
            with suppress(*GONE):
                async for data in client:
                    self.sent.append((time.monotonic(), bytes(data)))
                    async with sending:
                        unanswered.extend(data)
                        # If this one is gone, the next gets it.
                        if server:
                            with suppress(*GONE):
                                await server.send(data)
            group.cancel_scope.cancel()

        async with client, anyio.create_task_group() as group:
            group.start_soon(requests)
            while True:
                async with sending:
                    if not (server := await self.connect()):
                        break
                    with suppress(*GONE):
                        await server.send(bytes(unanswered))
                async with server:
                    with suppress(*GONE):
                        async for data in server:
                            unanswered.clear()
                            for session in re.findall(rb"mcp-session-id: ([!-~]+)", data):
                                self.sessions[session.decode()] = None
                            await client.send(data)
                if not unanswered:
                    break
            group.cancel_scope.cancel()


@asynccontextmanager
async def balanced(urls):
    """A balancer and its URL, which leads to the first of these that lives."""
    balancer = Balancer(urls)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, balancer.serve)
        yield balancer, f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/mcp"
        group.cancel_scope.cancel()
