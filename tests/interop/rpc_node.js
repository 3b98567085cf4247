// rpc_node.js - the core rows of rpc_python.py with @grpc/grpc-js; see rpc_node.sh.
//
// SPDX-License-Identifier: Apache-2.0
'use strict';
const assert = require('assert');
const childProcess = require('child_process');
const fs = require('fs');
const os = require('os');
const path = require('path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const MIB = 1 << 20;
const mode = process.argv[2];
const slow = process.env.SANITIZE ? 10 : 1;
const root = path.join(__dirname, '..', '..');
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'rpc-node-'));
const load = (...parts) => grpc.loadPackageDefinition(loader.loadSync(path.join(root, ...parts), {longs: Number, defaults: true}));
const {Echo} = load('tests', 'interop', 'echo.proto').mixrank.test;
const {Health} = load('proto', 'grpc', 'health', 'v1', 'health.proto').grpc.health.v1;
const {ServerReflection} = load('proto', 'grpc', 'reflection', 'v1', 'reflection.proto').grpc.reflection.v1;

const file = (name) => path.join(folder, name);
function openssl(...args) {
  childProcess.execFileSync('openssl', args, {stdio: 'ignore'});
}
const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
function issue(name) {
  fs.writeFileSync(file('ext'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
  openssl('req', ...EC, '-subj', `/CN=${name}`, '-keyout', file(`${name}.key`), '-out', file('request'));
  openssl('x509', '-req', '-in', file('request'), '-CA', file('ca.crt'), '-CAkey', file('ca.key'),
    '-CAcreateserial', '-days', '2', '-extfile', file('ext'), '-out', file(`${name}.crt`));
}

const args = ['--listen', '127.0.0.1:0', '--max-message', String(4 * MIB), '--gzip-from', '2000',
  '--threads', '16'];
let credentials = grpc.credentials.createInsecure();
if (mode !== 'plain') {
  openssl('req', '-x509', ...EC, '-days', '2', '-subj', '/CN=ca', '-keyout', file('ca.key'), '-out', file('ca.crt'));
  issue('server');
  issue('client');
  args.push('--cert', file('server.crt'), '--key', file('server.key'));
  const read = (name) => fs.readFileSync(file(name));
  if (mode === 'mtls') {
    args.push('--client-ca', file('ca.crt'));
    credentials = grpc.credentials.createSsl(read('ca.crt'), read('client.key'), read('client.crt'));
  } else {
    credentials = grpc.credentials.createSsl(read('ca.crt'));
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const options = {'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1,
  'grpc.enable_retries': 0};
const unary = (client, method, request, metadata = new grpc.Metadata(), callOptions = {}) =>
  new Promise((resolve, reject) => {
    client[method](request, metadata, callOptions, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
async function fails(code, promise) {
  try {
    await promise;
  } catch (error) {
    assert.strictEqual(error.code, code, error.message);
    return error;
  }
  throw new Error(`a call succeeded that should fail with ${code}`);
}
async function collect(stream) {
  const all = [];
  for await (const message of stream) all.push(message);
  return all;
}

async function main(address, server) {
  const echo = new Echo(address, credentials, options);
  const health = new Health(address, credentials, options);
  const reflection = new ServerReflection(address, credentials, options);
  const S = grpc.status;
  const tests = {
    async 'unary'() {
      const reply = await unary(echo, 'Unary', {payload: Buffer.from('hello')});
      assert.strictEqual(reply.payload.toString(), 'hello');
    },
    async 'streams'() {
      const small = await collect(echo.Stream({count: 1000}));
      assert.deepStrictEqual(small.map((m) => m.index), [...Array(1000).keys()]);
      const large = await collect(echo.Stream({count: 20, replyBytes: MIB}));
      assert.deepStrictEqual(large.map((m) => m.payload.length), Array(20).fill(MIB));
    },
    async 'status and message'() {
      const text = 'größer als 100 % %zz\n日本語';
      const error = await fails(S.FAILED_PRECONDITION, unary(echo, 'Unary', {code: 9, message: text}));
      assert.strictEqual(error.details, text);
      await fails(S.ABORTED, collect(echo.Stream({count: 3, code: 10})));
    },
    async 'unknown method'() {
      const wrong = new grpc.Client(address, credentials, options);
      await fails(S.UNIMPLEMENTED, new Promise((resolve, reject) => wrong.makeUnaryRequest('/no.such/Method',
        (x) => x, (x) => x, Buffer.alloc(3), (error, reply) => (error ? reject(error) : resolve(reply)))));
    },
    async 'deadline'() {
      const before = (await unary(echo, 'Stats', {})).cancelled;
      await fails(S.DEADLINE_EXCEEDED,
        unary(echo, 'Unary', {delayMs: 5000 * slow}, new grpc.Metadata(), {deadline: Date.now() + 200}));
      await sleep(200 * slow);
      assert((await unary(echo, 'Stats', {})).cancelled > before, 'the work is given up');
    },
    async 'cancelling'() {
      const before = (await unary(echo, 'Stats', {})).cancelled;
      let call;
      const result = new Promise((resolve, reject) => {
        call = echo.Unary({delayMs: 5000 * slow}, (error, reply) => (error ? reject(error) : resolve(reply)));
      });
      await sleep(100 * slow);
      call.cancel();
      await fails(S.CANCELLED, result);
      await sleep(200 * slow);
      assert((await unary(echo, 'Stats', {})).cancelled > before, 'the work is given up');
    },
    async 'metadata'() {
      const metadata = new grpc.Metadata();
      metadata.add('x-one', '1');
      metadata.add('x-raw-bin', Buffer.from([0, 255, 128]));
      metadata.add('x-raw-bin', Buffer.from([7])); // joined by a comma on the wire
      const [headers, trailers] = await new Promise((resolve, reject) => {
        let first;
        const call = echo.Unary({names: ['x-one', 'x-raw-bin']}, metadata, (error) => error && reject(error));
        call.on('metadata', (m) => { first = m; });
        call.on('status', (status) => resolve([first, status.metadata]));
      });
      for (const back of [headers, trailers]) {
        assert.deepStrictEqual(back.get('x-one'), ['1']);
        assert.deepStrictEqual(back.get('x-raw-bin'), [Buffer.from([0, 255, 128]), Buffer.from([7])]);
      }
    },
    async 'compression'() {
      const body = Buffer.alloc(100000, 'abc');
      for (const algorithm of [0, 1, 2]) { // identity, deflate, gzip
        const client = new Echo(address, credentials, {...options, 'grpc.default_compression_algorithm': algorithm});
        assert((await unary(client, 'Unary', {payload: body})).payload.equals(body));
        client.close();
      }
    },
    async 'sizes'() {
      const body = Buffer.alloc(3.9 * MIB, 1);
      assert((await unary(echo, 'Unary', {payload: body})).payload.equals(body));
      await fails(S.RESOURCE_EXHAUSTED, unary(echo, 'Unary', {payload: Buffer.alloc(5 * MIB)}));
      assert.strictEqual((await unary(echo, 'Unary', {replyBytes: 20 * MIB})).payload.length, 20 * MIB);
    },
    async 'health'() {
      assert.strictEqual((await unary(health, 'Check', {})).status, 1);
      await fails(S.NOT_FOUND, unary(health, 'Check', {service: 'nobody'}));
      const watch = health.Watch({});
      watch.on('error', () => {});
      const next = () => new Promise((resolve) => watch.once('data', (m) => resolve(m.status)));
      assert.strictEqual(await next(), 1);
      server.kill('SIGUSR1');
      assert.strictEqual(await next(), 2);
      server.kill('SIGUSR1');
      assert.strictEqual(await next(), 1);
      watch.cancel();
    },
    async 'reflection'() {
      const call = reflection.ServerReflectionInfo();
      call.write({listServices: '*'});
      call.write({fileContainingSymbol: 'mixrank.test.Echo'});
      call.end();
      const [list, found] = await collect(call);
      assert(list.listServicesResponse.service.some((s) => s.name === 'mixrank.test.Echo'));
      assert.strictEqual(found.fileDescriptorResponse.fileDescriptorProto.length, 1);
    },
    async 'hundred at once'() {
      const all = await Promise.all([...Array(100).keys()].map((i) =>
        unary(echo, 'Unary', {payload: Buffer.from([i]), delayMs: 20})));
      assert.deepStrictEqual(all.map((r) => r.payload[0]), [...Array(100).keys()]);
    },
    async 'drain'() {
      const result = unary(echo, 'Unary', {payload: Buffer.from('last'), delayMs: 500 * slow});
      await sleep(100 * slow);
      server.kill('SIGTERM');
      assert.strictEqual((await result).payload.toString(), 'last');
      await new Promise((resolve) => (server.exitCode !== null ? resolve() : server.once('exit', resolve)));
      assert.strictEqual(server.exitCode, 0);
      await fails(S.UNAVAILABLE, unary(echo, 'Unary', {}));
    },
  };
  let failed = 0;
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test();
      console.log(`ok     node ${mode}: ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED node ${mode}: ${name}:`, error);
    }
  }
  process.exitCode = failed ? 1 : 0;
  if (server.exitCode === null) server.kill('SIGTERM');
  for (const client of [echo, health, reflection]) client.close();
  fs.rmSync(folder, {recursive: true});
}

const server = childProcess.spawn(process.env.RPC_TEST_SERVER, args, {stdio: ['ignore', 'pipe', 'inherit']});
let output = '';
let started = false;
server.stdout.on('data', (data) => {
  output += data;
  if (!started && /^ready$/m.test(output)) {
    started = true;
    main(/^listening (.*)$/m.exec(output)[1], server);
  }
});
server.on('exit', (code) => {
  if (!started) {
    console.log(`the server did not start: ${code}`);
    process.exitCode = 1;
  }
});
