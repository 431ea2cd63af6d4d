// MCP client for browsers over Streamable HTTP (MCP 2025-11-25), made of `fetch` alone.
//
// A session has one stream for what the server sends by itself (GET), and a POST for each message to the server. The
// stream is opened again whenever it ends, after the delay that the server named (`retry`). `Last-Event-ID` then says
// which event came last, so nothing is lost and nothing comes twice, at whatever server the stream continues.

const VERSION = '2025-11-25';

/** Time without a byte after which a stream counts as dead. The server sends a comment every 15 s. */
const SILENCE_MS = 40_000;

/** Longest pause between two attempts to open the stream. */
const LONGEST_PAUSE_MS = 8_000;

/** Time after which an open stream counts as connected. A server may close a stream early, on purpose. */
const SETTLED_MS = 250;

/** Time that the answer to a request may take. */
const ANSWER_MS = 30_000;

/** Number of times that an answer to the server is sent, where sending fails. */
const ANSWER_ATTEMPTS = 6;

/** Largest event, in characters. */
const LARGEST_EVENT = 8 * 1024 * 1024;

/** Response of the server that is no success. */
class HttpError extends Error {
  constructor(status, text) {
    super(text.trim().slice(0, 300) || `the server answered with status ${status}`);
    this.status = status;
  }
}

/** Reads server-sent events. `onBytes` is called for each piece that arrives, also for comments. */
async function* events(body, onBytes = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let event = { data: [], id: undefined, retry: undefined };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return; // An event without its empty line is incomplete, and comes again.
      onBytes();
      // A carriage return at the end may be the first half of a line's end.
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === '') {
          yield { data: event.data.join('\n'), id: event.id, retry: event.retry };
          event = { data: [], id: undefined, retry: undefined };
          continue;
        }
        const [, field, text] = /^([^:]*)(?:: ?)?([^]*)$/.exec(line);
        if (field === 'data') event.data.push(text);
        else if (field === 'id' && !text.includes('\0')) event.id = text;
        else if (field === 'retry' && /^\d+$/.test(text)) event.retry = Number(text);
      }
      if (rest.length > LARGEST_EVENT) throw new Error('the server sent an event that is too large');
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Session with an MCP server.
 *
 * `handlers` has `notification(method, params)`, `request(method, params, id)`, `state(state)` and `lost(error)`. The
 * result of `request` is sent as the answer, and `undefined` is no answer. `lost` says that the session has ended.
 */
export class Client {
  #url;
  #token;
  #handlers;
  #session = null;
  #version = null;
  #lastEventId = null;
  #retryMs = 1_000;
  #nextId = 1;
  #isOpen = false;
  #isPaused = false;
  /** Set from the first connection on. A stream that ends before is one that the server closed early, on purpose. */
  #wasConnected = false;
  #stream = new AbortController();
  #wake = () => {};

  constructor(url, token, handlers) {
    this.#url = url;
    this.#token = token;
    this.#handlers = handlers;
  }

  get session() {
    return this.#session;
  }

  /** Returns all that another page of the tab needs to continue the session. */
  save() {
    return { session: this.#session, version: this.#version, lastEventId: this.#lastEventId, nextId: this.#nextId };
  }

  /** Continues a session that was saved. */
  restore({ session, version, lastEventId, nextId }) {
    [this.#session, this.#version, this.#lastEventId, this.#nextId] = [session, version, lastEventId, nextId];
    this.#begin();
  }

  /** Begins a session, and opens its stream. */
  async initialize(clientInfo, capabilities) {
    [this.#session, this.#version, this.#lastEventId] = [null, null, null];
    const params = { protocolVersion: VERSION, capabilities, clientInfo };
    const { result, session } = await this.#exchange('initialize', params);
    [this.#session, this.#version] = [session, result.protocolVersion];
    await this.notify('notifications/initialized');
    this.#begin();
    return result;
  }

  /** Sends a request, and returns its result. */
  async request(method, params) {
    return (await this.#exchange(method, params)).result;
  }

  /** Sends a notification. */
  async notify(method, params) {
    await this.#post({ jsonrpc: '2.0', method, params });
  }

  /** Closes the stream, until `resume`. The session stays. */
  pause() {
    this.#isPaused = true;
    this.#stream.abort();
  }

  /** Opens the stream again, after `pause` or earlier than planned. */
  resume() {
    this.#isPaused = false;
    this.#wake();
  }

  /** Ends the session. */
  async close() {
    this.#isOpen = false;
    this.pause();
    this.#wake();
    if (this.#session) await fetch(this.#url, { method: 'DELETE', headers: this.#headers(), keepalive: true });
  }

  #begin() {
    if (this.#isOpen) return;
    this.#isOpen = true;
    this.#listen();
  }

  #headers(more = {}) {
    const headers = { ...more };
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
    if (this.#session) headers['Mcp-Session-Id'] = this.#session;
    if (this.#version) headers['MCP-Protocol-Version'] = this.#version;
    return headers;
  }

  async #post(message) {
    const headers = this.#headers({
      'Content-Type': 'application/json',
      Accept: 'application/json, text/event-stream',
    });
    const signal = AbortSignal.timeout(ANSWER_MS);
    const response = await fetch(this.#url, { method: 'POST', headers, body: JSON.stringify(message), signal });
    if (!response.ok) throw new HttpError(response.status, await response.text());
    return response;
  }

  async #exchange(method, params) {
    const id = this.#nextId++;
    const response = await this.#post({ jsonrpc: '2.0', id, method, params });
    const session = response.headers.get('mcp-session-id');
    const isStream = response.headers.get('content-type')?.startsWith('text/event-stream');
    for await (const message of isStream ? messages(response.body) : [await response.json()]) {
      if (message.id !== id || message.method) {
        this.#receive(message);
      } else if (message.error) {
        throw new Error(message.error.message);
      } else {
        return { result: message.result, session };
      }
    }
    throw new Error('the server ended the response without an answer');
  }

  /** Keeps the stream open. */
  async #listen() {
    let failures = 0;
    while (this.#isOpen) {
      if (!this.#isPaused) {
        try {
          await this.#readStream();
          failures = 0;
        } catch (error) {
          // The server knows this session no longer, or refuses the client.
          if (error.status >= 400 && error.status < 500 && error.status !== 429) return this.#end(error);
          failures += 1;
        }
      }
      if (!this.#isOpen) return;
      const factor = Math.max(failures, 1) - 1;
      const pause = Math.min(this.#retryMs * 2 ** factor, LONGEST_PAUSE_MS);
      if (this.#wasConnected || failures) this.#handlers.state({ name: 'reconnecting' });
      await new Promise((wake) => {
        this.#wake = wake;
        // A paused stream waits for `resume` alone.
        if (!this.#isPaused) setTimeout(wake, pause);
      });
    }
  }

  async #readStream() {
    this.#stream = new AbortController();
    const headers = this.#headers({ Accept: 'text/event-stream' });
    if (this.#lastEventId) headers['Last-Event-ID'] = this.#lastEventId;
    let silence;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => this.#stream.abort(), SILENCE_MS);
    };
    heard();
    let settled;
    try {
      const response = await fetch(this.#url, { headers, signal: this.#stream.signal, cache: 'no-store' });
      if (!response.ok) throw new HttpError(response.status, await response.text());
      const server = response.headers.get('x-served-by');
      const connected = () => {
        clearTimeout(settled);
        settled = undefined;
        this.#wasConnected = true;
        this.#handlers.state({ name: 'connected', server });
      };
      settled = setTimeout(connected, SETTLED_MS);
      for await (const { data, id, retry } of events(response.body, heard)) {
        if (retry !== undefined) this.#retryMs = retry;
        if (data && settled !== undefined) connected();
        if (data) this.#receive(JSON.parse(data));
        // Only now: an event whose handling failed is not claimed.
        if (id !== undefined) this.#lastEventId = id;
      }
    } finally {
      clearTimeout(silence);
      clearTimeout(settled);
    }
  }

  #end(error) {
    this.#isOpen = false;
    this.#handlers.lost(error);
  }

  /** Handles a message that the server sends by itself. */
  #receive({ id, method, params }) {
    if (method === undefined) return;
    if (id === undefined) this.#handlers.notification(method, params);
    else if (method === 'ping') this.#answer(id, { result: {} });
    else this.#serve(id, method, params);
  }

  async #serve(id, method, params) {
    const result = await this.#handlers.request(method, params, id);
    if (result !== undefined) await this.#answer(id, result);
  }

  /** Sends an answer, and repeats it where a server died meanwhile. An answer counts once, however often it is sent. */
  async #answer(id, result) {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#post({ jsonrpc: '2.0', id, ...result });
      } catch (error) {
        if ((error.status ?? 500) < 500 || attempt === ANSWER_ATTEMPTS) return undefined;
        await new Promise((wake) => setTimeout(wake, 100 * 2 ** attempt));
      }
    }
  }
}

async function* messages(body) {
  for await (const { data } of events(body)) if (data) yield JSON.parse(data);
}
