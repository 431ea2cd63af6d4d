"""Clients of the official Python SDK behind nginx, HAProxy and Caddy, each configured as docs/proxies says."""

import os
import re
import signal
import subprocess
import time
from contextlib import asynccontextmanager, contextmanager
from statistics import median

import anyio
import httpx
import pytest
from clients import connect, until
from proxies import DOCUMENTED, FILES, free_port, proxied, without

pytestmark = pytest.mark.anyio

# Ratio of latencies through a proxy and past it. Waiting for an acknowledgement of TCP makes it 20 and more.
TOLERABLE = 5
REQUESTS = 20
# Time after which a proxy tries a server again that was away: 1 s in each configuration.
RECOVERY = 1.5


class Server:
    """A chat server at a port of its own, which can be killed and started again there."""

    def __init__(self, *args):
        self.args, self.port = args, free_port()
        self.start()

    def start(self):
        command = [os.environ["CHAT_BIN"], "--listen", f"127.0.0.1:{self.port}", *self.args]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip().removeprefix("listening on ")
        assert self.url.endswith("/mcp"), self.url

    def end(self, end):
        end(self.process)
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def started(count, *args):
    servers = [Server(*args) for _ in range(count)]
    try:
        yield servers
    finally:
        for server in servers:
            server.end(subprocess.Popen.kill)


@pytest.fixture
def servers(redis_url):
    """Two servers for a proxy, and a third that clients reach directly."""
    with started(3, "--redis", redis_url) as servers:
        yield servers


class Recorder(httpx.AsyncHTTPTransport):
    """Transport of a client. Records the POSTs that failed, and counts the streams."""

    def __init__(self):
        super().__init__()
        self.streams, self.failed = 0, []

    async def handle_async_request(self, request):
        try:
            response = await super().handle_async_request(request)
        except httpx.TransportError as error:
            self.failed.append(repr(error))
            raise
        if request.method == "POST" and not response.is_success:
            self.failed.append(response.status_code)
        self.streams += request.method == "GET" and response.is_success
        return response


@asynccontextmanager
async def member(url, recorder=None):
    """A client in the hall, which records when each text arrived."""
    async with httpx.AsyncClient(transport=recorder, timeout=60) as http, connect(url, http_client=http) as client:
        client.at = {}

        async def heard(params):
            client.at.setdefault(params.data["text"], time.monotonic())

        client.on_message = heard
        await client.call("join", room="hall", name=client.session_id[:8])
        yield client


async def latencies(behind, direct, count=40):
    """Says something to two clients, again and again. Returns the sorted times until it arrived at each."""
    times = ([], [])
    for n in range(count):
        said = time.monotonic()
        await direct.call("say", room="hall", text=f"timed {n}")
        for client, taken in zip((behind, direct), times):
            await until(lambda client=client, n=n: f"timed {n}" in client.at)
            taken.append(client.at[f"timed {n}"] - said)
    through, past = (sorted(taken) for taken in times)
    print(f"at the median {median(through) * 1000:.0f} ms through the proxy, {median(past) * 1000:.0f} ms past it")
    return through, past


async def outcomes_of_posts(url, session, server):
    """Sends requests while a server does not answer, and kills that server. Returns the outcome of each request."""
    outcomes, hanging = [], 0
    headers = {"accept": "application/json, text/event-stream", "mcp-session-id": session}

    async def post(http, n):
        try:
            response = await http.post(url, json={"jsonrpc": "2.0", "id": n, "method": "ping"}, headers=headers)
            outcomes.append(response.status_code)
        except httpx.TransportError as error:
            outcomes.append(repr(error))

    server.process.send_signal(signal.SIGSTOP)
    async with httpx.AsyncClient(timeout=60) as http, anyio.create_task_group() as group:
        for n in range(REQUESTS):
            group.start_soon(post, http, n)
        # The other server answers its share of them meanwhile.
        await anyio.sleep(0.5)
        hanging = REQUESTS - len(outcomes)
        server.end(subprocess.Popen.kill)
        began = time.monotonic()
    took = time.monotonic() - began
    print(f"{hanging} of {REQUESTS} were unanswered at the kill, and none {took:.2f} s later: {outcomes}")
    assert hanging, "the proxy leads to both servers"
    return outcomes


@pytest.mark.parametrize("proxy", FILES)
async def test_g2_g3_nothing_fails_behind_a_proxy_as_documented_while_servers_end(proxy, servers, tmp_path):
    recorder, said = Recorder(), 0
    balanced = servers[:2]
    with proxied(proxy, [server.port for server in balanced], tmp_path) as url:
        async with member(url, recorder) as behind, member(servers[2].url) as direct:
            through, past = await latencies(behind, direct)
            assert median(through) < TOLERABLE * median(past)

            async def speak():
                nonlocal said
                while True:
                    await direct.call("say", room="hall", text=f"said {said + 1}")
                    said += 1

            async def until_it_hears():
                last = said + 1
                await until(lambda: f"said {last}" in behind.at)

            async with anyio.create_task_group() as group:
                group.start_soon(speak)
                # One of the two holds the client's stream. So the stream moves at least once in each round.
                for server in balanced:
                    assert await outcomes_of_posts(url, behind.session_id, server) == [200] * REQUESTS
                    await until_it_hears()
                    server.start()
                    await anyio.sleep(RECOVERY)
                for server in balanced:
                    await anyio.to_thread.run_sync(server.end, subprocess.Popen.terminate)
                    await until_it_hears()
                    server.start()
                    await anyio.sleep(RECOVERY)
                group.cancel_scope.cancel()
            await until(lambda: len(behind.told) >= len(direct.told))
            # A repeat would arrive soon.
            await anyio.sleep(0.5)
            assert [params.data for params in behind.told] == [params.data for params in direct.told]
            assert recorder.failed == []
            assert recorder.streams > 2


async def test_without_http_no_delay_haproxy_delays_chunked_streams(servers, tmp_path, monkeypatch):
    # Streams of clients of this version and before have chunks.
    monkeypatch.setattr("mcp.types.LATEST_PROTOCOL_VERSION", "2025-06-18")
    with proxied("haproxy", [server.port for server in servers[:2]], tmp_path, without("option http-no-delay")) as url:
        async with member(url) as behind, member(servers[2].url) as direct:
            through, past = await latencies(behind, direct)
            # Not the medians: load adds to both.
            assert through[len(through) // 4] > TOLERABLE * past[len(past) // 4]


@pytest.mark.parametrize(
    ("proxy", "line", "outcome"),
    [
        ("nginx", " non_idempotent", 502),
        ("nginx", r"proxy_set_header Host \$http_host;", 403),
        ("haproxy", "option http-buffer-request", 502),
        ("haproxy", "retry-on conn-failure empty-response", 502),
        ("haproxy", "option redispatch 1", 503),
        ("caddy", r"lb_retry_match \{[^}]*\}", 502),
        ("caddy", "request_buffers 4MiB", 502),
        ("caddy", "lb_try_duration 5s", 502),
    ],
)
async def test_without_one_of_these_lines_requests_fail_when_a_server_dies(proxy, line, outcome, servers, tmp_path):
    with proxied(proxy, [server.port for server in servers[:2]], tmp_path, without(line)) as url:
        async with connect(servers[2].url) as client:
            assert outcome in await outcomes_of_posts(url, client.session_id, servers[0])


def shown(language):
    """Blocks of the page that are of one language, without their indentation."""
    page = (DOCUMENTED.parent / "proxies.md").read_text()
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [re.sub(r"^\s+", "", block, flags=re.MULTILINE) for block in blocks]


@pytest.mark.parametrize("proxy", FILES)
def test_the_page_shows_the_file(proxy):
    file = re.sub(r"^\s+", "", (DOCUMENTED / FILES[proxy]).read_text(), flags=re.MULTILINE)
    assert shown(proxy)[0] in file


async def test_haproxy_keeps_sessions_of_servers_without_a_store_where_they_began(tmp_path):
    def edit(text):
        assert text.count("balance leastconn\n") == 1
        return text.replace("balance leastconn\n", "balance leastconn\n" + shown("haproxy")[1])

    with started(2) as servers, proxied("haproxy", [server.port for server in servers], tmp_path, edit) as url:
        for _ in range(6):
            async with connect(url) as client:
                for _ in range(6):
                    await client.call("session_id")
