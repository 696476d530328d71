// What runs beside the candidate in Node: harness.py's protocol without calls. A program has
// completed when its event loop is empty, not when it asks the process to exit.
'use strict';
(() => {
  const fs = require('fs');
  const vm = require('vm');
  const CHANNEL = 3;

  function readExactly(size) {
    const data = Buffer.alloc(size);
    for (let at = 0; at < size; ) {
      const got = fs.readSync(CHANNEL, data, at, size - at, null);
      if (got === 0) process.exit(1);
      at += got;
    }
    return data;
  }

  function readFrame() {
    return readExactly(readExactly(4).readUInt32BE(0));
  }

  function writeFrame(payload) {
    const head = Buffer.alloc(4);
    head.writeUInt32BE(payload.length, 0);
    const data = Buffer.concat([head, payload]);
    for (let at = 0; at < data.length; ) at += fs.writeSync(CHANNEL, data, at);
  }

  const source = JSON.parse(readFrame().toString('utf8')).source;
  globalThis.require = require;
  process.once('beforeExit', () => {
    writeFrame(Buffer.from('R'));
    const nonce = readFrame().subarray(1, 17);
    writeFrame(Buffer.concat([Buffer.from('V'), nonce]));
  });
  vm.runInThisContext(source, { filename: 'program.js' });
})();
