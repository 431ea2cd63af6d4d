// The chat as clients in TypeScript see it, each in its default mode. CHAT_BIN is the built example: see scripts/node-tests.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { createMCPClient } from '@ai-sdk/mcp';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const PATIENCE_MS = 60_000;

let server, url;

before(async () => {
  server = spawn(process.env.CHAT_BIN, ['--listen', '127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = await once(createInterface({ input: server.stdout }), 'line');
  assert.match(line, /^listening on /);
  url = line.replace('listening on ', '');
});

after(async () => {
  server.kill('SIGTERM');
  const [code] = await once(server, 'exit');
  assert.equal(code, 0);
});

const modes = { 'its default mode': undefined, 'the mode auto': { versionNegotiation: { mode: 'auto' } } };

for (const [mode, options] of Object.entries(modes)) {
  test(`the TypeScript SDK in ${mode} begins a session and is told all in order`, async () => {
    const told = [];
    const client = new Client({ name: 'typescript', version: '0' }, options);
    client.setNotificationHandler('notifications/message', ({ params }) => void told.push(params.data));
    await client.connect(new StreamableHTTPClientTransport(new URL(url)));
    const call = async (name, args) => {
      const result = await client.callTool({ name, arguments: args });
      assert.ok(!result.isError, JSON.stringify(result));
      return result.structuredContent;
    };
    const room = `room of ${mode}`;
    await call('join', { room, name: 'a' });
    for (let n = 1; n <= 20; n++) await call('say', { room, text: String(n) });
    for (const deadline = Date.now() + PATIENCE_MS; told.length < 20; await sleep(10)) {
      assert.ok(Date.now() < deadline, `told ${told.length} of 20`);
    }
    assert.deepEqual(told.map(({ seq }) => seq), Array.from({ length: 20 }, (_, n) => n + 1));
    await client.close();
  });
}

test('the AI SDK begins a session and calls tools; it shows no notifications', async () => {
  const client = await createMCPClient({ transport: { type: 'http', url } });
  const tools = await client.tools();
  const call = (name, args) => tools[name].execute(args, { toolCallId: name, messages: [] });
  const joined = await call('join', { room: 'ai', name: 'a' });
  assert.deepEqual(joined.structuredContent, { room: 'ai', members: ['a'], seq: 0 });
  const said = await call('say', { room: 'ai', text: 'hello' });
  assert.deepEqual(said.structuredContent, { seq: 1, members: 1 });
  await client.close();
});
