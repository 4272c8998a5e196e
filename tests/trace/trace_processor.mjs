// Perfetto's trace processor as a command: prints the rows of queries, one a line, columns separated by tabs.
//
//     node trace_processor.mjs FOLDER TRACE QUERY...
//
// FOLDER has the files that tools/peers.sh unpacks: the processor as WebAssembly, the program of the browser's worker
// that loads it, and the protocol between that worker and the page.
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {pathToFileURL} from 'node:url';
import vm from 'node:vm';

const [folder, trace, ...queries] = process.argv.slice(2);

// What the worker's program expects of a browser. It has a build for 64-bit memories, which the folder lacks; the first
// module that it makes is the probe for it.
class Module extends WebAssembly.Module {
  static probed = false;
  constructor(bytes) {
    if (!Module.probed) {
      Module.probed = true;
      throw new WebAssembly.CompileError('no 64-bit memory');
    }
    super(bytes);
  }
}
class XMLHttpRequest {
  open() {}
  send() { this.response = new Uint8Array(readFileSync(join(folder, 'trace_processor.wasm'))).buffer; }
}
class WorkerGlobalScope {}
const location = {href: 'http://localhost/worker.js'};
WebAssembly.Module = Module;
Object.assign(globalThis, {self: globalThis, location, XMLHttpRequest, WorkerGlobalScope});
console.log = console.warn = console.error;
vm.runInThisContext(readFileSync(join(folder, 'worker.js'), 'utf8'));

const {EngineBase} = await import(pathToFileURL(join(folder, 'engine.mjs')));
class Engine extends EngineBase {
  port = {postMessage: (bytes) => this.onRpcResponseBytes(bytes)};
  rpcSendRequestBytes(data) { this.port.onmessage({data}); }
}
const engine = new Engine();
self.onmessage({data: engine.port});
// In pieces, as the page does: the processor takes messages of up to 64 MB.
const bytes = new Uint8Array(readFileSync(trace));
const PIECE = 32 << 20;
for (let at = 0; at < bytes.length; at += PIECE) {
  await engine.parse(bytes.slice(at, at + PIECE));
}
await engine.notifyEof();
for (const query of queries) {
  const result = await engine.query(query);
  const columns = result.columns();
  for (const row = result.iter({}); row.valid(); row.next()) {
    process.stdout.write(columns.map((column) => row.get(column)).join('\t') + '\n');
  }
}
