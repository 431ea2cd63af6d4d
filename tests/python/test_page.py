"""The chat's page in a real browser. With PAGE_SCREENSHOTS=DIR the screenshots of docs/images are made there."""

import json
import os
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from anyio.from_thread import start_blocking_portal
from balancer import balanced
from browser import Tab, browser
from selenium.webdriver.common.keys import Keys

MARKUP = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script> & <b>bold</b>"


@pytest.fixture(scope="module")
def driver():
    with browser() as driver:
        yield driver


@pytest.fixture
def tab(driver):
    """Opens a tab at the page of a server. All tabs close, and none may have an error that its test did not take."""
    tabs = []

    def open_tab(url):
        tabs.append(Tab(driver, url.removesuffix("mcp")))
        return tabs[-1]

    first = driver.current_window_handle
    yield open_tab
    errors = [error for tab in tabs if tab.handle in driver.window_handles for error in tab.take_errors()]
    for handle in driver.window_handles[1:]:
        driver.switch_to.window(handle)
        driver.close()
    driver.switch_to.window(first)
    # Nothing of this test stays in the tab for the next one.
    driver.get("about:blank")
    driver.get("data:,")
    assert errors == []


@pytest.fixture
def balancer():
    """Starts balancers, each with one origin for all of its servers, the first first."""
    with start_blocking_portal() as portal, ExitStack() as stack:
        yield lambda *urls: stack.enter_context(portal.wrap_async_context_manager(balanced(urls)))[1]


def place(url):
    return urlsplit(url).netloc


def test_g2_g3_a_tab_whose_server_is_killed_goes_on_at_the_other_one(fleet, balancer, tab):
    servers, (one, other, *_) = fleet
    ann, bob = tab(balancer(one, other)), tab(balancer(other, one))
    ann.join("ann")
    bob.join("bob")
    ann.until_connected(place(one))
    bob.until_connected(place(other))
    ann.until(lambda: ann.members() == ["ann", "bob"], "ann sees who is here")
    ann.say("Hello from one server")
    bob.until_said("Hello from one server")
    bob.say("And from the other")
    ann.until_said("And from the other")
    ann.run(
        "window.states = []; new MutationObserver(() => states.push(document.querySelector('#state-text').textContent))"
        ".observe(document.querySelector('#state-text'), {childList: true})"
    )
    # The server of ann dies while bob talks, so that some of it is on its way.
    for n in range(30):
        bob.find("#text").send_keys(f"line {n}", Keys.ENTER)
        if n == 10:
            servers[0].kill()
            servers[0].wait()
        bob.until(lambda: bob.find("#text").get_property("value") == "", "it was said")
    bob.until_said("line 29")
    ann.until_said("line 29")
    ann.until_connected(place(other))
    ann.say("Back again")
    bob.until_said("Back again")
    expected = ["Hello from one server", "And from the other", *(f"line {n}" for n in range(30)), "Back again"]
    for member in (ann, bob):
        assert member.said() == expected
        assert [seq for seq, _, _ in member.lines()] == list(range(1, len(expected) + 1))
    assert "Reconnecting…" in ann.run("return states")
    (note,) = ann.notes()
    print(f"ann: {note}")
    assert note.startswith("Connection lost for ") and note.endswith(f" Now at server {place(other)}.")
    assert bob.notes() == []
    # A poll is answered in its form, by members whose servers were two.
    ann.poll("Lunch?", "pizza", "sushi")
    ann.question().choose("pizza").press()
    bob.question().choose("sushi").press()
    for member in (ann, bob):
        member.until_said("Lunch? pizza 1, sushi 1")
        assert member.all("#questions form") == []
    # The browser reports requests that died with their server.
    assert ann.take_errors(of_requests=False) == []


BURST, KILLS = 200, 3
HEARD = """
const [burst] = arguments;
window.heard = [];
new MutationObserver((changes) => changes.forEach(({addedNodes}) => addedNodes.forEach((node) => {
  if (node.className !== 'note' || !node.textContent.startsWith('info: ')) return;
  heard.push(JSON.parse(node.textContent.slice(6)).n);
  // The page is busy in the middle of each burst: what it has read by then is not confirmed when its server dies.
  for (const end = performance.now() + 1500; heard.length % burst === burst / 2 && performance.now() < end;);
}))).observe(document.querySelector('#lines'), {childList: true});
"""


def test_g3_nothing_comes_twice_to_a_tab_whose_servers_are_killed_while_it_reads(fleet, balancer, worker, tab):
    servers, urls = fleet
    ann = tab(balancer(*urls))
    ann.join("ann")
    ann.until_connected(place(urls[0]))
    ann.run(HEARD, BURST)
    session = ann.session()
    for n in range(KILLS):
        worker("push-many", session, str(BURST))
        servers[n].kill()
        servers[n].wait()
        ann.until(lambda n=n: ann.run("return heard.length") >= (n + 1) * BURST, "the burst has arrived")
        ann.until_connected(place(urls[n + 1]))
    # Whatever came twice would be here soon.
    time.sleep(0.5)
    assert ann.run("return heard") == list(range(1, BURST + 1)) * KILLS
    print("ann:", *(note for note in ann.notes() if "lost" in note))
    assert ann.take_errors(of_requests=False) == []


def test_what_others_write_is_never_markup(chat, tab):
    url = chat()
    ann, bob = tab(url), tab(url)
    name = MARKUP[:64]
    ann.join("ann")
    bob.join(name)
    bob.say(MARKUP)
    ann.until_said(MARKUP)
    assert ann.lines() == [[1, name, MARKUP]]
    ann.until(lambda: ann.members() == ["ann", name], "ann sees the name")
    ann.poll(MARKUP, MARKUP[:64], "no")
    for member in (ann, bob):
        question = member.question()
        assert MARKUP in member.text("#questions h2")
        question.choose(MARKUP[:64]).press()
    for member in (ann, bob):
        member.until(lambda member=member: len(member.lines()) == 2, "the result is said")
        assert member.run("return document.querySelectorAll('#chat :is(img, script, b)').length") == 0
        assert member.run("return document.title") == "hall – Chat"


SCHEMA = {
    "type": "object",
    "properties": {
        "note": {"type": "string", "title": "Note", "minLength": 3, "maxLength": 20, "description": "A few words"},
        "mail": {"type": "string", "title": "Mail", "format": "email"},
        "day": {"type": "string", "title": "Day", "format": "date", "default": "2031-05-06"},
        "count": {"type": "integer", "title": "Count", "minimum": 1, "maximum": 9},
        "price": {"type": "number", "title": "Price", "default": 2.5},
        "approve": {"type": "boolean", "title": "Approve", "default": True},
        "size": {"type": "string", "title": "Size", "enum": ["s", "m"], "enumNames": ["Small", "Medium"]},
        "colour": {"type": "string", "title": "Colour", "oneOf": [{"const": f"#{n}", "title": f"Colour {n}"} for n in range(9)]},
        "days": {
            "type": "array",
            "title": "Days",
            "minItems": 1,
            "maxItems": 2,
            "items": {"anyOf": [{"const": day, "title": day.title()} for day in ("mon", "tue", "wed")]},
        },
        "left": {"type": "string", "title": "Left out"},
    },
    "required": ["note", "count", "size", "colour", "days"],
}


def test_a_form_has_a_field_for_each_kind_of_the_schema(redis_url, chat, worker, tab):
    member = tab(chat("--redis", redis_url))
    member.join("ann")
    member.until_connected()
    answers = []

    def elicit(task):
        args = ("elicit", member_session, task, "Please fill in", json.dumps(SCHEMA))
        thread = threading.Thread(target=lambda: answers.append(json.loads(worker(*args))))
        thread.start()
        return thread

    member_session = member.session()
    asked = elicit("task-1")
    question = member.question()
    assert not question.is_valid()
    question.type("Note", "as agreed").type("Mail", "a@b.example").type("Count", "12").choose("Small", "Mon", "Tue", "Wed")
    question.labels["Colour"].send_keys("Colour 7")
    assert not question.is_valid()
    question.choose("Wed").type("Count", "3")
    assert question.is_valid()
    question.labels["Note"].send_keys(Keys.ENTER)
    asked.join()
    content = {
        "note": "as agreed",
        "mail": "a@b.example",
        "day": "2031-05-06",
        "count": 3,
        "price": 2.5,
        "approve": True,
        "size": "s",
        "colour": "#7",
        "days": ["mon", "tue"],
    }
    assert answers.pop() == {"action": "accept", "content": content}
    for task, button, action in [("task-2", "Decline", "decline"), ("task-3", "Skip", "cancel")]:
        asked = elicit(task)
        member.question().press(button)
        asked.join()
        assert answers.pop()["action"] == action


def test_users_need_their_tokens(chat, tab):
    member = tab(chat("--token", "ann=secret-1"))
    member.join("ann", token="wrong", is_admitted=False)
    member.until(lambda: member.text("#join-error") == "The chat does not know this token.", "the token is refused")
    # The browser itself reports the status.
    assert all("401" in error for error in member.take_errors())
    member.join("ann", token="secret-1")
    member.until_connected()
    member.say("Hello")
    member.until_said("Hello")


def test_a_reload_continues_and_leaving_ends(chat, tab):
    url = chat()
    ann, bob = tab(url), tab(url)
    ann.join("ann")
    bob.join("bob")
    ann.say("before")
    bob.until_said("before")
    session = ann.session()
    ann.driver.refresh()
    bob.say("meanwhile")
    ann.until_said("meanwhile")
    assert ann.session() == session
    assert ann.said() == ["before", "meanwhile"]
    assert ann.notes() == []
    assert ann.members() == ["ann", "bob"]
    ann.find("#leave").click()
    bob.until(lambda: bob.members() == ["bob"], "ann has left")
    # Her name is free again.
    ann.join("ann")
    bob.until(lambda: bob.members() == ["bob", "ann"], "ann is back")
    assert ann.session() != session
    ann.find("#leave").click()
    ann.join("bob", is_admitted=False)
    ann.until(lambda: "is taken" in (ann.text("#join-error") or ""), "a name belongs to one")


def test_a_tab_outlives_a_restart_of_the_only_server(chat, tab):
    """The queue is in memory, so the session is lost with the server, and the tab begins another one."""
    url, servers = chat(), chat.servers
    ann = tab(url)
    ann.join("ann")
    ann.until_connected()
    ann.say("before")
    ann.until_said("before")
    session = ann.session()
    servers[0].terminate()
    assert servers[0].wait(timeout=20) == 0
    ann.until(lambda: ann.text("#state-text") == "Reconnecting…", "the tab says so")
    chat(listen=place(url))
    ann.until(lambda: any("Your session had ended" in note for note in ann.notes()), "the tab has joined again")
    ann.until_connected()
    ann.say("after")
    ann.until_said("after")
    assert ann.said() == ["before", "after"]
    assert ann.session() != session
    # The browser itself reports the attempts that were refused, and the status of the lost session.
    assert all("ERR_CONNECTION" in error or "404" in error for error in ann.take_errors())


def test_a_sixth_tab_waits_for_a_connection(chat, tab):
    """Over HTTP/1.1 a browser makes six connections to an origin."""
    url = chat()
    tabs = [tab(url) for _ in range(6)]
    for n, member in enumerate(tabs[:5]):
        member.join(f"member {n}")
        member.until_connected()
    last = tabs[5]
    last.join("member 5", is_admitted=False)
    last.until(lambda: last.find("#wait").is_displayed(), "the sixth waits")
    assert "six connections" in last.text("#wait")
    tabs[0].say("All five can talk")
    tabs[4].until_said("All five can talk")
    tabs[2].close()
    last.until_connected()
    last.say("Now me too")
    tabs[4].until_said("Now me too")


CONTRAST = """
const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
const groundOf = (element) => {
  for (; element; element = element.parentElement) {
    const ground = parse(getComputedStyle(element).backgroundColor);
    if (ground[3] === 1) return ground;
  }
  throw new Error('no ground');
};
const found = [];
for (const element of document.querySelectorAll('body *')) {
  const isText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!isText || !element.checkVisibility() || element.closest('.hidden')) continue;
  const [light, dark] = [parse(getComputedStyle(element).color), groundOf(element)].map(luminance).sort((a, b) => b - a);
  found.push([(light + 0.05) / (dark + 0.05), element.textContent.trim().slice(0, 40)]);
}
return found;
"""
SMALL = """
return [...document.querySelectorAll('button, summary, textarea, select, label.option, input:not([type=radio], [type=checkbox])')]
  .filter((element) => element.checkVisibility())
  .map((element) => [element.getBoundingClientRect().height, element.textContent || element.id])
  .filter(([height]) => height < 43.5);
"""
SIZES = {"light": (1100, 720, 1), "dark": (1100, 720, 1), "phone": (360, 740, 1)}


def test_the_page_can_be_read_and_touched_in_light_and_dark_and_on_a_phone(chat, tab):
    url = chat()
    ann, bob = tab(url), tab(url)
    ann.join("Ann")
    bob.join("Bob")
    bob.say("Good morning! Has anybody seen how the new release behaves?")
    ann.say("It went out at nine. One server was restarted, and nobody noticed.")
    bob.say("My tab said “reconnecting” for half a second, and then all the lines were there.")
    ann.poll("Where do we have lunch?", "The noodle bar", "The canteen", "In the park")
    ann.question().choose("In the park").press()
    bob.question()
    for what, (width, height, scale) in SIZES.items():
        scheme = {"name": "prefers-color-scheme", "value": "dark" if what == "dark" else "light"}
        bob.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": what == "phone"}
        bob.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        bob.until(lambda width=width: bob.run("return innerWidth") == width, "the page has its size")
        ratios = bob.run(CONTRAST)
        assert len(ratios) > 15, ratios
        assert [found for found in ratios if found[0] < 4.5] == [], what
        assert bob.run("return document.scrollingElement.scrollWidth") <= width, what
        assert bob.run(SMALL) == [], what
        if directory := os.environ.get("PAGE_SCREENSHOTS"):
            assert bob.driver.save_screenshot(str(Path(directory) / f"chat-{what}.png"))
    for command in ("Emulation.clearDeviceMetricsOverride", "Emulation.setEmulatedMedia"):
        bob.driver.execute_cdp_cmd(command, {})
    labels = bob.run(
        "return [...document.querySelectorAll('input, textarea, select')].filter((field) => !field.labels.length)"
        ".map((field) => field.id)"
    )
    assert labels == []


@pytest.fixture
def elsewhere():
    """The URL of an empty page of another origin."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<link rel=icon href=data:,>")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


# What an MCP client of that page does: it begins a session, names it in further requests, reads its stream, and ends it.
CLIENT = """
const [url, done] = arguments;
const send = (method, body, session) => fetch(url, {method, body: body && JSON.stringify({jsonrpc: '2.0', ...body}), headers: {
  Accept: 'application/json, text/event-stream', Authorization: 'Bearer secret-1', 'Last-Event-ID': '',
  ...(body && {'Content-Type': 'application/json'}),
  ...(session && {'Mcp-Session-Id': session, 'MCP-Protocol-Version': '2025-11-25'}),
}});
(async () => {
  const params = {protocolVersion: '2025-11-25', capabilities: {}, clientInfo: {name: 'elsewhere', version: '0'}};
  const begun = await send('POST', {id: 1, method: 'initialize', params});
  const session = begun.headers.get('mcp-session-id');
  const statuses = [begun.status, (await send('POST', {method: 'notifications/initialized'}, session)).status];
  const stream = await send('GET', undefined, session);
  const first = new TextDecoder().decode((await stream.body.getReader().read()).value);
  statuses.push(stream.status, (await send('DELETE', undefined, session)).status);
  return [session, statuses, first];
})().then(done, (error) => done(String(error)));
"""


def test_a_page_of_another_origin_is_served_where_it_is_allowed(chat, elsewhere, tab):
    origin = elsewhere.rstrip("/")
    open_, closed = chat("--token", "ann=secret-1", "--allow-origin", origin), chat("--token", "ann=secret-1")
    page = tab(elsewhere)
    session, statuses, first = page.driver.execute_async_script(CLIENT, open_)
    assert statuses == [200, 202, 200, 204]
    assert session and first.startswith("data:")
    assert page.take_errors() == []
    assert page.driver.execute_async_script(CLIENT, closed) == "TypeError: Failed to fetch"
    errors = page.take_errors()
    assert any("blocked by CORS policy" in error for error in errors), errors


def test_the_page_asks_nobody_else_and_runs_no_foreign_script(chat, tab):
    member = tab(chat())
    member.join("ann")
    member.until_connected()
    origins = member.run("return performance.getEntriesByType('resource').map(({name}) => new URL(name).origin)")
    assert set(origins) == {member.run("return location.origin")}
    member.run("const script = document.createElement('script'); script.textContent = 'window.foreign = 1';"
               "document.body.append(script)")
    assert member.run("return window.foreign") is None
    (error,) = member.take_errors()
    assert "Content Security Policy" in error
