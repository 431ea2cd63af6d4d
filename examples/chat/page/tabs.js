// Tabs of one browser. Over HTTP/1.1 a browser makes six connections to one origin, and all tabs share them. Each tab
// of the chat holds one of them for its stream. A sixth stream would leave no connection for requests, and every tab
// would wait. So at most five tabs are connected at once; a further tab waits until one of them goes.

/** Number of streams that leave a connection for requests. */
const MOST_STREAMS = 5;

/** Returns whether tabs share few connections. HTTP/2 and newer carry any number of streams over one. */
function sharesConnections() {
  const [navigation] = performance.getEntriesByType('navigation');
  return !/^h[23]/.test(navigation?.nextHopProtocol ?? '');
}

/** Takes a lock until the result is called, or the tab goes. Returns `null` where another tab has the lock. */
function take(name, options) {
  return new Promise((taken, failed) => {
    const hold = (lock) => {
      if (!lock) return taken(null);
      return new Promise((release) => taken(release));
    };
    navigator.locks.request(name, options, hold).catch(failed);
  });
}

/**
 * Takes the right to open a stream. Calls `onWait` where the tab has to wait for another one. Returns the function that
 * gives the right back.
 */
export async function takeStream(onWait) {
  // Browsers have locks on pages of HTTPS and of localhost only.
  if (!navigator.locks || !sharesConnections()) return () => {};
  const names = Array.from({ length: MOST_STREAMS }, (_, n) => `chat stream ${n + 1}`);
  for (const name of names) {
    const release = await take(name, { ifAvailable: true });
    if (release) return release;
  }
  onWait(MOST_STREAMS);
  const rest = new AbortController();
  const takes = names.map((name) => take(name, { signal: rest.signal }));
  const release = await Promise.any(takes);
  rest.abort();
  // A second one may have been taken at the same time.
  for (const other of takes) other.then((it) => it !== release && it(), () => {});
  return release;
}

/**
 * Takes a session for this tab, for as long as the tab is there. Returns whether the tab has it now: a duplicate of a
 * tab has a copy of what the tab saved, but the session belongs to the first.
 */
export async function takeSession(session) {
  if (!navigator.locks) return true;
  return (await take(`chat session ${session}`, { ifAvailable: true })) !== null;
}
