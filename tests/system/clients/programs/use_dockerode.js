// dockerode: a run with its streams apart, exec, statistics, files, and what is removed.
const assert = require('assert');
const { PassThrough } = require('stream');
const Docker = require('dockerode');

const docker = new Docker();

function text(stream) {
  const chunks = [];
  stream.on('data', (chunk) => chunks.push(chunk));
  return () => Buffer.concat(chunks).toString();
}

// The end of a run and its output come over two connections, and node may read them in either order.
async function until(condition) {
  for (let turn = 0; turn < 2000 && !condition(); turn++) await new Promise((done) => setTimeout(done, 5));
}

async function main() {
  const out = new PassThrough(), err = new PassThrough();
  const said = text(out), complained = text(err);
  const [ended, first] = await docker.run('busybox', ['sh', '-c', 'echo out; echo err >&2; exit 3'],
    [out, err], { Tty: false, HostConfig: { NetworkMode: 'none' } });
  assert.strictEqual(ended.StatusCode, 3);
  await until(() => said() && complained());
  assert.deepStrictEqual([said(), complained()], ['out\n', 'err\n']);
  await first.remove();

  const container = await docker.createContainer({ Image: 'busybox', Cmd: ['sleep', '600'], name: 'ode' });
  await container.start();
  const exec = await container.exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true });
  const stream = await exec.start({ hijack: true, stdin: true });
  const echoed = new PassThrough(), echo = text(echoed);
  container.modem.demuxStream(stream, echoed, err);
  const over = new Promise((resolve) => stream.on('end', resolve));
  stream.end('through\n');
  await over;
  await until(echo);
  assert.strictEqual(echo(), 'through\n');
  assert.strictEqual((await exec.inspect()).ExitCode, 0);

  const stats = await container.stats({ stream: false });
  assert(stats.pids_stats.current >= 1);
  const info = await container.inspect();
  assert(info.NetworkSettings.Networks.bridge.IPAddress);
  const listed = await docker.listContainers({ filters: { name: ['ode'] } });
  assert.strictEqual(listed.length, 1);
  await container.kill();
  await container.wait();
  await container.remove({ v: true });
  await assert.rejects(container.inspect(), (error) => error.statusCode === 404);
  console.log('done');
}

main().catch((error) => { console.error(error); process.exit(1); });
