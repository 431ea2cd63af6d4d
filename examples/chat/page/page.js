// The chat in a browser. All text of users and servers is shown as text, and never as markup.

import { buildFields, element } from './form.js';
import { Client } from './mcp.js';
import { takeSession, takeStream } from './tabs.js';

/** Number of lines that are kept. */
const MOST_LINES = 500;

/** Number of questions that are shown at once. The server asks a client at most 16. */
const MOST_QUESTIONS = 16;

/** Number of questions whose answers are remembered, for a server that asks again. */
const MOST_ANSWERS = 100;

/** Name under which the chat itself says the results of polls. */
const POLL = 'poll';

/** Name under which a reload of this tab finds its session. */
const SAVED = 'chat';

/** Pause before the members are read again, during which further changes are joined. */
const WHO_MS = 200;

const at = (id) => document.getElementById(id);
const ui = Object.fromEntries([...document.querySelectorAll('[id]')].map(({ id }) => [id, at(id)]));
const isWide = matchMedia('(width >= 48rem)');

/** The chat that this tab is in: its client, room, name and token. `null` before the first. */
let chat = null;
/** Lines that were shown, as data, for a reload. */
let lines = [];
/** Moment since which there is no connection. */
let lostAt = null;
/** Server of the last connection. */
let server = null;
/** Set while the newest line is in view, and further ones shall be too. */
let isAtEnd = true;
/** Questions that are open: JSON-RPC id -> the card, and the function that answers. */
const open = new Map();
/** Answers by JSON-RPC id, in the order in which they were given. */
const answered = new Map();

const uriOf = (room) => `chat://rooms/${encodeURIComponent(room)}`;

// --- Joining and leaving ---

/** Calls a tool of the chat. Returns its result, and throws the text of its refusal. */
async function call(name, args) {
  const result = await chat.client.request('tools/call', { name, arguments: args });
  if (result.isError) throw new Error(result.content?.find((part) => part.text)?.text ?? 'the chat refused');
  return result.structuredContent;
}

/** Enters a room: with a new session, or with one that was saved. */
async function enter(room, name, token, saved) {
  const client = new Client(new URL('mcp', location.href), token, handlers);
  const release = await takeStream((most) => {
    ui.wait.textContent =
      `${most} tabs of this chat are connected. A browser makes six connections to a server over HTTP/1.1, and one must ` +
      'stay free. This tab goes on when you close another one.';
    ui.wait.hidden = false;
  });
  ui.wait.hidden = true;
  chat = { client, room, name, token, release };
  try {
    setState({ name: 'connecting' });
    if (saved) {
      [lines, server] = [saved.lines, saved.server];
      ui.lines.replaceChildren(...lines.map(lineElement));
      client.restore(saved.client);
      show();
      scrollDown();
    } else {
      await begin();
    }
    await join();
    if (!saved) show();
  } catch (error) {
    // A session that was restored, and that has ended, is begun anew by `lost`.
    if (saved && error.status === 404) return;
    await end();
    throw error;
  }
}

async function begin() {
  const info = { name: 'mcp-courier chat page', version: '1' };
  await chat.client.initialize(info, { elicitation: { form: {} } });
  await takeSession(chat.client.session);
}

async function join() {
  const { members } = await call('join', { room: chat.room, name: chat.name });
  showMembers(members);
  await chat.client.request('resources/subscribe', { uri: uriOf(chat.room) });
}

/** Leaves the chat: the server forgets the session. */
async function end() {
  const { client, release } = chat;
  chat = null;
  [...open.keys()].forEach(withdraw);
  ui.lines.replaceChildren();
  [lines, lostAt, server] = [[], null, null];
  ui.chat.hidden = true;
  ui.welcome.hidden = false;
  // The browser reports a server that cannot be reached; the session then ends by itself.
  await client.close().catch(() => {});
  release();
}

function show() {
  const { client, room } = chat;
  document.title = `${room} – Chat`;
  ui['room-title'].textContent = room;
  ui.session.textContent = client.session;
  ui.who.open = isWide.matches;
  ui.welcome.hidden = true;
  ui.chat.hidden = false;
  ui.text.focus();
}

// --- What the server says ---

const handlers = {
  notification(method, params) {
    if (method === 'notifications/message') return hear(params);
    if (method === 'notifications/resources/updated') return askWho();
    if (method === 'notifications/cancelled') return withdraw(params.requestId);
    return undefined;
  },
  request(method, params, id) {
    if (method === 'elicitation/create') return ask(id, params);
    return { error: { code: -32601, message: `the page has no method ${method}` } };
  },
  state: setState,
  async lost(error) {
    if (error.status !== 404) return fail(error);
    // The session has ended at the server. A new one takes its place.
    [...open.keys()].forEach(withdraw);
    try {
      await begin();
      await join();
      show();
      note('Your session had ended. You have joined again; messages in between are missing.');
    } catch (again) {
      fail(again);
    }
    return undefined;
  },
};

async function fail(error) {
  if (!chat) return;
  await end();
  ui['join-error'].textContent = describe(error);
}

function setState({ name, server: named }) {
  const now = performance.now();
  if (name === 'connected') {
    if (lostAt !== null) {
      const seconds = ((now - lostAt) / 1000).toFixed(1);
      const place = !named || named === server ? '' : ` Now at server ${named}.`;
      note(`Connection lost for ${seconds} s.${place}`);
      askWho();
    }
    [lostAt, server] = [null, named ?? server];
  } else if (name === 'reconnecting') {
    lostAt ??= now;
  }
  const texts = { connecting: 'Connecting…', reconnecting: 'Reconnecting…' };
  ui['state-text'].textContent = texts[name] ?? (server ? `Connected to ${server}` : 'Connected');
  ui.state.className = `state ${name}`;
}

/** Shows a notification for the user: what a member said, or a line of a worker. */
function hear({ data, level }) {
  if (typeof data?.text === 'string' && typeof data.from === 'string') {
    if (data.room === chat?.room) addLine({ from: data.from, text: data.text, time: Date.now(), seq: data.seq });
  } else {
    note(`${level ?? 'info'}: ${typeof data === 'string' ? data : JSON.stringify(data)}`);
  }
}

const note = (text) => addLine({ text, time: Date.now() });

function addLine(line) {
  lines.push(line);
  if (lines.length > MOST_LINES) lines.shift();
  ui.lines.append(lineElement(line));
  while (ui.lines.children.length > MOST_LINES) ui.lines.firstElementChild.remove();
  if (isAtEnd || line.from === chat?.name) scrollDown();
  else ui.newest.hidden = false;
}

function lineElement({ from, text, time, seq }) {
  if (from === undefined) return element('div', { className: 'note' }, text);
  const date = new Date(time);
  const clock = date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  const kind = from === POLL ? 'result' : from === chat.name ? 'own' : '';
  const head = element('div', { className: 'head' });
  head.append(
    element('span', { className: 'from' }, from === POLL ? 'Result of the poll' : from),
    element('time', { dateTime: date.toISOString() }, clock),
  );
  const item = element('div', { className: kind }, head, element('div', { className: 'said' }, text));
  item.dataset.seq = seq;
  return item;
}

function scrollDown() {
  ui.lines.scrollTop = ui.lines.scrollHeight;
  isAtEnd = true;
  ui.newest.hidden = true;
}

// --- Who is here ---

let whoTimer;

function askWho() {
  clearTimeout(whoTimer);
  whoTimer = setTimeout(async () => {
    if (!chat) return;
    // A failure leaves the members as they were; the next change reads them again.
    const now = await call('who', { room: chat.room }).catch(() => null);
    if (now && chat) showMembers(now.members);
  }, WHO_MS);
}

function showMembers(members) {
  ui['who-count'].textContent = `${members.length} here`;
  const others = members.filter((name) => name !== chat.name).sort((a, b) => a.localeCompare(b));
  const you = element('li', {}, chat.name, element('span', { className: 'muted' }, ' (you)'));
  ui.members.replaceChildren(you, ...others.map((name) => element('li', {}, name)));
}

// --- Questions ---

/** Shows a question as a form. Returns its answer, once the user has given one. */
function ask(id, { message, requestedSchema, mode }) {
  // A server that continues another one's work asks again, with the same id.
  if (answered.has(id)) return answered.get(id);
  if (open.has(id)) return undefined;
  const cancel = { result: { action: 'cancel' } };
  if (open.size >= MOST_QUESTIONS || (mode ?? 'form') !== 'form') return cancel;
  let fields;
  try {
    fields = buildFields(requestedSchema);
  } catch (error) {
    note(`A question could not be shown: ${error.message}.`);
    return cancel;
  }
  return new Promise((settle) => {
    const titleId = `question-${open.size}-${Date.now()}`;
    const title = element('h2', { id: titleId }, message);
    const button = (label, className, type) => element('button', { className, type, textContent: label });
    const answer = button('Answer', 'primary', 'submit');
    const decline = button('Decline', 'quiet', 'button');
    const later = button('Skip', 'quiet', 'button');
    const actions = element('div', { className: 'actions' }, answer, decline, later);
    const card = element('form', { className: 'card' }, title, ...fields.elements, actions);
    card.setAttribute('aria-labelledby', titleId);
    const finish = (result) => {
      answered.set(id, { result });
      if (answered.size > MOST_ANSWERS) answered.delete(answered.keys().next().value);
      remove(id);
      ui.text.focus();
      settle({ result });
    };
    card.addEventListener('submit', (event) => {
      event.preventDefault();
      finish({ action: 'accept', content: fields.read() });
    });
    decline.addEventListener('click', () => finish({ action: 'decline' }));
    later.addEventListener('click', () => finish({ action: 'cancel' }));
    open.set(id, { card, withdraw: () => settle(undefined) });
    ui.questions.append(card);
  });
}

function remove(id) {
  open.get(id)?.card.remove();
  open.delete(id);
}

/** Removes a question that nobody waits for any more. */
function withdraw(id) {
  open.get(id)?.withdraw();
  remove(id);
}

// --- What the user does ---

function describe(error) {
  if (error.status === 401) return 'The chat does not know this token.';
  if (error.name === 'TimeoutError') return 'The server did not answer in time.';
  if (error instanceof TypeError) return 'The server cannot be reached. Try again in a moment.';
  return error.message;
}

/** Runs what a form does. Shows the failure beside the form, and prevents that it is sent twice at once. */
function onSubmit(form, errorElement, act) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (form.dataset.busy) return;
    form.dataset.busy = 'yes';
    errorElement.textContent = '';
    try {
      await act();
    } catch (error) {
      errorElement.textContent = describe(error);
    } finally {
      delete form.dataset.busy;
    }
  });
}

onSubmit(ui.join, ui['join-error'], async () => {
  const token = ui.token.value;
  await enter(ui.room.value.trim(), ui.name.value.trim(), token);
});

onSubmit(ui.say, ui['say-error'], async () => {
  const text = ui.text.value.trim();
  if (!text) return;
  const { errors } = await call('say', { room: chat.room, text });
  // What was typed meanwhile stays.
  if (ui.text.value.trim() === text) ui.text.value = '';
  if (errors) throw new Error(`${errors.map(({ name }) => name).join(', ')} did not get it.`);
});

onSubmit(ui['poll-form'], ui['poll-error'], async () => {
  const options = ui.options.value.split('\n').map((option) => option.trim()).filter(Boolean);
  await call('poll', { room: chat.room, question: ui.question.value.trim(), options });
  ui['poll-form'].reset();
  ui.poll.close();
});

ui.text.addEventListener('keydown', (event) => {
  // While an input method composes, Enter belongs to it.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ui.say.requestSubmit();
});

ui.ask.addEventListener('click', () => ui.poll.showModal());
ui['poll-cancel'].addEventListener('click', () => ui.poll.close());
ui.leave.addEventListener('click', async () => {
  await end();
  document.title = 'Chat';
  ui.name.focus();
});
ui.newest.addEventListener('click', scrollDown);
ui.lines.addEventListener('scroll', () => {
  isAtEnd = ui.lines.scrollHeight - ui.lines.scrollTop - ui.lines.clientHeight < 48;
  if (isAtEnd) ui.newest.hidden = true;
});
// A question, or the keyboard of a phone, takes room from the lines.
new ResizeObserver(() => isAtEnd && scrollDown()).observe(ui.lines);
isWide.addEventListener('change', () => {
  ui.who.open = isWide.matches;
});

// --- The tab ---

// The stream of a tab that goes is closed at once, because its connection is one of few. A reload continues the
// session.
addEventListener('pagehide', () => {
  if (!chat) return;
  chat.client.pause();
  const { client, room, name, token } = chat;
  sessionStorage.setItem(SAVED, JSON.stringify({ client: client.save(), room, name, token, lines, server }));
});
addEventListener('pageshow', ({ persisted }) => {
  if (persisted) chat?.client.resume();
});
addEventListener('online', () => chat?.client.resume());
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) chat?.client.resume();
});

async function start() {
  const needsToken = document.body.dataset.needsToken === 'yes';
  ui['token-field'].hidden = !needsToken;
  ui.token.required = needsToken;
  const saved = JSON.parse(sessionStorage.getItem(SAVED) ?? 'null');
  sessionStorage.removeItem(SAVED);
  if (saved) {
    [ui.name.value, ui.room.value, ui.token.value] = [saved.name, saved.room, saved.token];
    // A duplicate of a tab begins a session of its own.
    if (saved.client.session && (await takeSession(saved.client.session))) {
      try {
        return await enter(saved.room, saved.name, saved.token, saved);
      } catch (error) {
        ui['join-error'].textContent = describe(error);
      }
    }
  }
  ui.welcome.hidden = false;
  ui.name.focus();
  return undefined;
}

start();
