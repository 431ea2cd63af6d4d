"""Clients of any kind behind a balancer, whose servers die under them."""

import time
from contextlib import AsyncExitStack

import anyio
from balancer import balanced

PATIENCE = 60
BURST, KILLS = 50, 5
QUESTION = ["task-7", "Pay?", '{"type": "object", "properties": {"approve": {"type": "boolean"}}}']
ACCEPT = {"action": "accept", "content": {"approve": True}}


class Told:
    """All that a worker told a client, in order, with what came twice."""

    def __init__(self):
        self.received, self.once, self.at = [], {}, []

    async def add(self, params):
        meta = params.meta if isinstance(params.meta, dict) else params.meta.model_extra
        self.received.append(params.data["n"])
        self.once.setdefault(meta["mcp-courier/id"], params.data["n"])
        self.at.append(time.monotonic())

    @property
    def gap(self):
        """The longest time in which nothing came."""
        return max(after - before for before, after in zip(self.at, self.at[1:]))


async def until(reached):
    with anyio.fail_after(PATIENCE):
        while not reached():
            await anyio.sleep(0.01)


async def tell_while_servers_end(kinds, fleet, worker, count, ends):
    """Each of the `kinds`, made of a URL and a handler, is told `count` things, and meanwhile each of `ends` ends a server."""
    servers, urls = fleet
    told = {kind: Told() for kind in kinds}
    async with balanced(urls) as (balancer, url), AsyncExitStack() as stack:
        for kind, connect in kinds.items():
            await stack.enter_async_context(connect(url, told[kind].add))
        async with anyio.create_task_group() as group:
            for session in balancer.sessions:
                group.start_soon(anyio.to_thread.run_sync, worker, "push-many", session, str(count))
            for n, end in enumerate(ends):
                # In the middle for all.
                due = count * (n + 1) // (len(ends) + 1)
                await until(lambda due=due: all(len(each.once) >= due for each in told.values()))
                end(servers[n])
            await until(lambda: all(len(each.once) >= count for each in told.values()))
    for kind, each in told.items():
        repeats = len(each.received) - count
        print(f"{kind}: {repeats} repeats, at most {each.gap:.2f} s without a notification")
        assert each.received == list(range(1, count + 1))


async def tell_while_servers_are_killed(kinds, fleet, worker):
    """Each of the `kinds` is told a burst for each server. A handler kills each server but the last within its burst, so nothing
    of the burst is confirmed before."""
    servers, urls = fleet
    told, killed = {kind: Told() for kind in kinds}, []

    def handler(kind):
        async def handle(params):
            await told[kind].add(params)
            if len(killed) < KILLS and len(told[kind].once) > len(killed) * BURST + BURST // 2:
                servers[len(killed)].kill()
                killed.append(kind)

        return handle

    async with balanced(urls) as (balancer, url), AsyncExitStack() as stack:
        for kind, connect in kinds.items():
            await stack.enter_async_context(connect(url, handler(kind)))
        for burst in range(1, KILLS + 2):
            async with anyio.create_task_group() as group:
                for session in balancer.sessions:
                    group.start_soon(anyio.to_thread.run_sync, worker, "push-many", session, str(BURST))
            await until(lambda burst=burst: all(len(each.once) >= burst * BURST for each in told.values()))
        # Whatever came twice would be here soon.
        await anyio.sleep(0.5)
    assert len(killed) == KILLS
    for kind, each in told.items():
        print(f"{kind}: {len(each.received)} of {len(each.once)}, at most {each.gap:.2f} s without a notification")
        assert each.received == list(range(1, BURST + 1)) * (KILLS + 1)
