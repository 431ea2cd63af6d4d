// Clients of the trials in TypeScript. `trial_client.mjs KIND URL` prints each thing that the client KIND hands to its
// program, as a line of JSON. A line on standard input makes it call a tool. See scripts/client-trials.

import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const say = (line) => console.log(JSON.stringify(line));

const show = (hook) => (notification) => {
  const { method, params } = notification;
  say({ shown: method, hook, n: params?.data?.n });
};

const elicit = ({ mode = 'form' }) => {
  say({ asked: mode });
  return mode === 'form' ? { action: 'accept', content: { approve: true } } : { action: 'accept' };
};

const onerror = (error) => say({ error: String(error?.message ?? error) });
const onprogress = () => say({ shown: 'notifications/progress', hook: 'onprogress' });
const info = { name: 'trial', version: '0' };
const capabilities = { elicitation: { form: {}, url: {} } };

const kinds = {
  'sdk 1': async (url, options) => {
    const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
    const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
    const types = await import('@modelcontextprotocol/sdk/types.js');
    const client = new Client(info, { capabilities });
    client.onerror = onerror;
    client.setNotificationHandler(types.LoggingMessageNotificationSchema, show('setNotificationHandler'));
    client.fallbackNotificationHandler = show('fallbackNotificationHandler');
    client.setRequestHandler(types.ElicitRequestSchema, ({ params }) => elicit(params));
    await client.connect(new StreamableHTTPClientTransport(new URL(url), options));
    return () => client.callTool({ name: 'session_id', arguments: {} }, undefined, { onprogress });
  },
  'client 2': async (url, options) => {
    const { Client, StreamableHTTPClientTransport } = await import('@modelcontextprotocol/client');
    const client = new Client(info, { capabilities });
    return connect2(client, new StreamableHTTPClientTransport(new URL(url), options));
  },
  'mcp-remote': async (url) => {
    const { Client } = await import('@modelcontextprotocol/client');
    const { StdioClientTransport } = await import('@modelcontextprotocol/client/stdio');
    const proxy = fileURLToPath(import.meta.resolve('mcp-remote/dist/proxy.js'));
    const transport = new StdioClientTransport({ command: 'node', args: [proxy, url] });
    return connect2(new Client(info, { capabilities }), transport);
  },
  'mcp-use': async (url) => {
    const { MCPClient } = await import('mcp-use/client');
    const options = { onNotification: show('onNotification'), onElicitation: async (params) => elicit(params) };
    const client = new MCPClient({ mcpServers: { chat: { url } } }, options);
    const session = await client.createSession('chat');
    return () => session.callTool('session_id', {});
  },
  'ai-sdk': async (url) => {
    const { createMCPClient, ElicitationRequestSchema } = await import('@ai-sdk/mcp');
    const options = { capabilities: { elicitation: {} }, onUncaughtError: onerror };
    const client = await createMCPClient({ transport: { type: 'http', url }, ...options });
    client.onElicitationRequest(ElicitationRequestSchema, async ({ params }) => elicit(params));
    const tools = await client.tools();
    return () => tools.session_id.execute({}, { toolCallId: 'session_id', messages: [] });
  },
};

async function connect2(client, transport) {
  client.onerror = onerror;
  client.setNotificationHandler('notifications/message', show('setNotificationHandler'));
  client.fallbackNotificationHandler = show('fallbackNotificationHandler');
  client.setRequestHandler('elicitation/create', ({ params }) => elicit(params));
  await client.connect(transport);
  return () => client.callTool({ name: 'session_id', arguments: {} }, { onprogress });
}

// A KIND that ends so has a transport that does not give up.
const PATIENT = ', patient';
const reconnectionOptions = {
  maxRetries: 1_000,
  initialReconnectionDelay: 1_000,
  maxReconnectionDelay: 5_000,
  reconnectionDelayGrowFactor: 1.5,
};

const [kind, url] = process.argv.slice(2);
const call = await kinds[kind.replace(PATIENT, '')](url, kind.endsWith(PATIENT) ? { reconnectionOptions } : undefined);
say({ ready: true });
for await (const _ of createInterface({ input: process.stdin })) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error('no answer in 10 s')), 10_000));
  try {
    await Promise.race([call(), late]);
    say({ called: true });
  } catch (error) {
    say({ called: false, error: String(error) });
  }
}
process.exit(0);
