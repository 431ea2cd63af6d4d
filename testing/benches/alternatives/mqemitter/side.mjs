// The side of mqemitter-redis in the comparison: Redis's publish and subscribe. What nobody listens to is lost, and so is what
// a listener fails to take.

import { appendFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import mqemitter from 'mqemitter-redis'

// The status that says that the package has no such thing.
const REFUSED = 3
// How many messages are emitted before the first of them is waited for.
const CHUNK = 100

const now = () => String(BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e6)))
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    redis: { type: 'string' },
    pace: { type: 'string' },
    from: { type: 'string', default: '0' },
    'fail-first': { type: 'boolean', default: false },
    takes: { type: 'string', default: '0' }
  }
})
const [command, ...rest] = positionals
const url = new URL(values.redis)
const emitter = mqemitter({ host: url.hostname, port: Number(url.port) })

const emit = (topic, number) => new Promise((resolve, reject) => {
  const message = { topic, number, pushed: now(), padding: 'x'.repeat(120) }
  emitter.emit(message, (error) => (error ? reject(error) : resolve()))
})
const on = (topic, handle) => new Promise((resolve) => emitter.on(topic, handle, resolve))

async function push (count) {
  const from = Number(values.from)
  let due = performance.now()
  for (let number = from; number < from + count; number++) {
    if (values.pace !== undefined) {
      await sleep(Math.max(0, due - performance.now()))
      due += Number(values.pace)
    }
    await emit('session', number)
  }
}

async function serve (file) {
  let toFail = values['fail-first']
  const takes = Number(values.takes)
  await on('session', async (message, done) => {
    if (toFail) {
      toFail = false
      return done()
    }
    if (takes > 0) await sleep(takes)
    appendFileSync(file, `${message.number} ${message.pushed} ${now()}\n`)
    done()
  })
  console.log('ready')
}

async function through (count, queues) {
  let handled = 0
  let all
  const finished = new Promise((resolve) => { all = resolve })
  for (let queue = 0; queue < queues; queue++) {
    await on(`queue-${queue}`, (_, done) => {
      if (++handled === count) all()
      done()
    })
  }
  const begun = performance.now()
  for (let number = 0; number < count; number += CHUNK) {
    const chunk = Array.from({ length: Math.min(CHUNK, count - number) }, (_, n) => number + n)
    await Promise.all(chunk.map((n) => emit(`queue-${n % queues}`, n)))
  }
  await finished
  console.log(JSON.stringify({ rate: count / ((performance.now() - begun) / 1000) }))
}

switch (command) {
  case 'push':
    await push(Number(rest[0]))
    process.exit(0)
  case 'serve':
    await serve(rest[0])
    break
  case 'through':
    await through(Number(rest[0]), Number(rest[1]))
    process.exit(0)
  default:
    process.exit(REFUSED)
}
