// Clients in TypeScript whose servers are killed: nothing is lost, and nothing comes twice. See scripts/node-tests.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { Client as OlderClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as OlderTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { LoggingMessageNotificationSchema } from '@modelcontextprotocol/sdk/types.js';

const PATIENCE_MS = 60_000;
const [BURST, KILLS] = [50, 5];

let redis, redisUrl;

const free = async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
};

const until = async (reached, what) => {
  for (const deadline = Date.now() + PATIENCE_MS; !(await reached()); await sleep(10)) {
    assert.ok(Date.now() < deadline, what());
  }
};

before(async () => {
  const port = await free();
  redis = spawn('redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', ''], { stdio: 'ignore' });
  redisUrl = `redis://127.0.0.1:${port}/`;
  const answers = () =>
    new Promise((done) => {
      const socket = connect(port, '127.0.0.1', () => done(true) || socket.destroy());
      socket.on('error', () => done(false));
    });
  await until(answers, () => 'Redis does not answer');
});

after(() => redis.kill('SIGKILL'));

const startChat = async () => {
  const args = ['--listen', '127.0.0.1:0', '--redis', redisUrl];
  const server = spawn(process.env.CHAT_BIN, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = await once(createInterface({ input: server.stdout }), 'line');
  return { server, port: Number(new URL(line.replace('listening on ', '')).port) };
};

// Leads each connection to the first server that takes it.
const balancer = async (ports) => {
  const lead = (client, [port, ...others]) => {
    const server = connect(port, '127.0.0.1', () => {
      client.pipe(server).pipe(client);
      client.on('close', () => server.destroy());
      server.on('close', () => client.destroy());
    });
    server.on('error', () => (server.connecting || server.pending) && others.length ? lead(client, others) : client.destroy());
  };
  const listener = createServer((client) => {
    client.on('error', () => {});
    lead(client, ports);
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  return { listener, url: new URL(`http://127.0.0.1:${listener.address().port}/mcp`) };
};

const kinds = {
  'sdk 1': async (url, handle) => {
    const [client, transport] = [new OlderClient({ name: 'sdk', version: '0' }), new OlderTransport(url)];
    client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => handle(params));
    await client.connect(transport);
    return { client, session: transport.sessionId };
  },
  'client 2': async (url, handle) => {
    const [client, transport] = [new Client({ name: 'client', version: '0' }), new StreamableHTTPClientTransport(url)];
    client.setNotificationHandler('notifications/message', ({ params }) => handle(params));
    await client.connect(transport);
    return { client, session: transport.sessionId };
  },
};

for (const [kind, begin] of Object.entries(kinds)) {
  test(`nothing comes twice to ${kind} while five servers are killed`, async () => {
    const fleet = await Promise.all(Array.from({ length: KILLS + 1 }, startChat));
    const { listener, url } = await balancer(fleet.map(({ port }) => port));
    const [told, ids, at] = [[], new Set(), []];
    let killed = 0;
    const { client, session } = await begin(url, (params) => {
      told.push(params.data.n);
      ids.add(params._meta['mcp-courier/id']);
      at.push(Date.now());
      // Within the burst: nothing of it is confirmed.
      if (killed < KILLS && ids.size > killed * BURST + BURST / 2) fleet[killed++].server.kill('SIGKILL');
    });
    for (let burst = 1; burst <= KILLS + 1; burst++) {
      await promisify(execFile)(process.env.WORKER_BIN, ['--redis', redisUrl, 'push-many', session, String(BURST)]);
      await until(() => ids.size >= burst * BURST, () => `told ${ids.size} of ${burst * BURST}`);
    }
    // Whatever came twice would be here soon.
    await sleep(500);
    const gap = Math.max(...at.slice(1).map((time, n) => time - at[n]));
    console.log(`${kind}: ${told.length} of ${ids.size}, at most ${gap} ms without a notification`);
    assert.equal(killed, KILLS);
    assert.deepEqual(told, Array.from({ length: (KILLS + 1) * BURST }, (_, n) => (n % BURST) + 1));
    await client.close();
    listener.close();
    fleet.forEach(({ server }) => server.kill('SIGKILL'));
  });
}
