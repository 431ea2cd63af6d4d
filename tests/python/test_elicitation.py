"""Questions of background tasks, as users of the official Python SDK and of FastMCP 3 answer them."""

import json
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace

import anyio
import fastmcp
import pytest
from clients import connect, until
from fastmcp.client.elicitation import ElicitResult
from mcp.types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ErrorData,
    InitializeResult,
    JSONRPCMessage,
    ListToolsResult,
    LoggingMessageNotification,
    PingRequest,
    ServerNotification,
    ServerRequest,
    TaskStatusNotification,
)

pytestmark = pytest.mark.anyio

RELATED_TASK = "io.modelcontextprotocol/related-task"
SCHEMA = {
    "type": "object",
    "properties": {
        "approve": {"type": "boolean", "title": "Do you approve?"},
        "amount": {"type": "integer", "minimum": 1, "maximum": 100},
        "colour": {"type": "string", "enum": ["red", "green"]},
    },
    "required": ["approve"],
}
CONTENT = {"approve": True, "amount": 7, "colour": "green"}
ACCEPT = {"action": "accept", "content": CONTENT}


@asynccontextmanager
async def client(kind, url, answers):
    """Either client, by its session id and what it was asked."""
    if kind == "mcp":
        async with connect(url, answers) as member:
            yield member
        return
    asked, answers = [], list(answers or [])

    async def handle(message, response_type, params, context):
        asked.append(params)
        answer = answers.pop(0)
        return ElicitResult(action=answer["action"], content=answer.get("content"))

    handler = {"elicitation_handler": handle} if answers else {}
    async with fastmcp.Client(url, **handler) as session:
        yield SimpleNamespace(session_id=session.transport.get_session_id(), asked=asked)


@pytest.fixture
def elicit(worker):
    """Has a worker ask, and gives what it printed."""

    async def run(session_id, *args, schema=SCHEMA):
        ask = lambda: worker("elicit", session_id, "task-7", "Pay 7 € to ACME?", json.dumps(schema), *args)
        return json.loads(await anyio.to_thread.run_sync(ask))

    return run


@pytest.mark.parametrize("kind", ["mcp", "fastmcp"])
async def test_a_user_accepts_declines_and_cancels(kind, redis_url, chat, elicit):
    answers = [ACCEPT, {"action": "decline"}, {"action": "cancel"}, ACCEPT]
    async with client(kind, chat("--redis", redis_url), answers) as user:
        assert await elicit(user.session_id) == ACCEPT
        assert await elicit(user.session_id) == {"action": "decline"}
        assert await elicit(user.session_id, "--scope", "client|sub") == {"action": "cancel", "reason": None}
        assert await elicit(user.session_id) == ACCEPT
        assert [params.message for params in user.asked] == ["Pay 7 € to ACME?"] * 4
        assert user.asked[0].requestedSchema == SCHEMA


@pytest.mark.parametrize("kind", ["mcp", "fastmcp"])
async def test_a_client_without_the_capability_is_not_asked_and_the_worker_is_told_at_once(
    kind, redis_url, chat, elicit
):
    async with client(kind, chat("--redis", redis_url), None) as user:
        with anyio.fail_after(30):
            told = await elicit(user.session_id, "--timeout", "300")
        assert told == {"action": "cancel", "reason": "the client has not declared this mode of elicitation"}
        assert user.asked == []


async def test_what_does_not_fit_and_what_the_client_refuses_is_a_cancellation_that_says_why(redis_url, chat, elicit):
    answers = [{"action": "accept", "content": {"approve": "perhaps"}}, ErrorData(code=-32000, message="not now")]
    async with connect(chat("--redis", redis_url), answers) as member:
        wrong = await elicit(member.session_id)
        assert wrong == {"action": "cancel", "reason": "the client's answer does not fit the schema at /approve"}
        refused = await elicit(member.session_id)
        assert refused == {"action": "cancel", "reason": "the client refused: not now"}


async def test_a_question_waits_for_the_client_that_comes_back(redis_url, chat, elicit):
    """The client's stream comes only after the question."""
    async with anyio.create_task_group() as group, AsyncExitStack() as stack:
        url = chat("--redis", redis_url)
        member = await stack.enter_async_context(connect(url, [ACCEPT, ACCEPT]))
        outcomes = []

        async def ask():
            outcomes.append(await elicit(member.session_id))

        for _ in range(2):
            group.start_soon(ask)
        await until(lambda: len(outcomes) == 2)
        assert outcomes == [ACCEPT, ACCEPT]


def assert_valid(received):
    """By the SDK's types of 2025-11-25, and where they are lax by the specification's words."""
    kinds = []
    for message in received:
        JSONRPCMessage.model_validate(message)
        # What is of MCP stands in params or result, and nowhere else.
        assert set(message) <= {"jsonrpc", "id", "method", "params", "result"}
        if "method" not in message:
            result = message["result"]
            known = {"protocolVersion": InitializeResult, "tools": ListToolsResult, "content": CallToolResult}
            next(known[key] for key in known if key in result).model_validate(result)
            continue
        union = ServerRequest if "id" in message else ServerNotification
        called = {key: message[key] for key in ("method", "params") if key in message}
        root = union.model_validate(called).root
        kinds.append(type(root))
        meta = message.get("params", {}).get("_meta", {})
        if isinstance(root, TaskStatusNotification):
            # "SHOULD NOT include it: the taskId is already present."
            assert RELATED_TASK not in meta
            assert {"taskId", "status", "createdAt", "lastUpdatedAt", "ttl"} <= set(message["params"])
            assert "requestedSchema" not in json.dumps(message)
        if isinstance(root, ElicitRequest):
            assert isinstance(root.params, ElicitRequestFormParams)
            # "MUST include it in all requests, notifications and responses of a task."
            assert meta == {RELATED_TASK: {"taskId": meta[RELATED_TASK]["taskId"]}}
            assert set(message["params"]) <= {"mode", "message", "requestedSchema", "_meta"}
    everything = json.dumps(received)
    for internal in ("task_scope", "requestId", "enqueued_at", "deadline", "client|sub"):
        assert internal not in everything
    return kinds


async def test_all_that_a_client_receives_in_an_elicitation_is_valid(redis_url, chat, elicit):
    async with connect(chat("--redis", redis_url), [ACCEPT]) as member:
        assert await elicit(member.session_id, "--scope", "client|sub") == ACCEPT
        kinds = [kind for kind in assert_valid(member.received) if kind is not PingRequest]
        assert sorted(kind.__name__ for kind in kinds) == ["ElicitRequest", "TaskStatusNotification"]
        (status,) = (message for message in member.received if message.get("method") == "notifications/tasks/status")
        assert (status["params"]["taskId"], status["params"]["status"]) == ("task-7", "input_required")


async def test_a_poll_is_answered_by_real_clients_at_two_servers(redis_url, chat):
    urls = [chat("--redis", redis_url, "--poll-timeout", "60") for _ in range(2)]
    answers = [
        [{"action": "accept", "content": {"choice": "pizza"}}],
        [{"action": "accept", "content": {"choice": "sushi"}}],
        [{"action": "accept", "content": {"choice": "pizza"}}],
        [{"action": "decline"}],
        [{"action": "cancel"}],
        None,
    ]
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(connect(urls[n % 2], given)) for n, given in enumerate(answers)]
        info = members[0].initialized.serverInfo
        assert info.name == "mcp-courier chat"
        for n, member in enumerate(members):
            await member.call("join", room="r", name=str(n))
        begun = await members[0].call("poll", room="r", question="Lunch?", options=["pizza", "sushi"])
        assert begun == {"room": "r", "begun": True, "members": 6, "seconds": 60}
        for member in members:
            await member.until_told(1)
    text = "Lunch? pizza 2, sushi 1 (1 declined, 1 did not answer, 1 not able to answer)"
    for member in members:
        assert member.told[0].data == {"room": "r", "from": "poll", "text": text, "seq": 1}
        kinds = [kind for kind in assert_valid(member.received) if kind is not PingRequest]
        # The question may overtake the status that announces it, and not what comes after its answer.
        announced = {TaskStatusNotification} if member.answers is None else {TaskStatusNotification, ElicitRequest}
        assert (set(kinds[:-2]), len(kinds[:-2])) == (announced, len(announced))
        assert kinds[-2:] == [TaskStatusNotification, LoggingMessageNotification]
