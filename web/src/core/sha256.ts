// SHA-256 of short texts, many times a second. The browser's own is asynchronous, slow a piece, and
// missing where a phone reaches the server without TLS.

const K = constants();

function constants(): Uint32Array {
  const found = new Uint32Array(64);
  for (let count = 0, value = 2; count < 64; value++) {
    let isPrime = true;
    for (let divisor = 2; divisor * divisor <= value && isPrime; divisor++) isPrime = value % divisor !== 0;
    if (isPrime) found[count++] = fraction(Math.cbrt(value));
  }
  return found;
}

function fraction(value: number): number {
  return Math.floor((value - Math.floor(value)) * 2 ** 32);
}

const START = Uint32Array.from([2, 3, 5, 7, 11, 13, 17, 19], (prime) => fraction(Math.sqrt(prime)));
const words = new Uint32Array(64);

/** The eight words of the digest. */
export function sha256(message: Uint8Array): Uint32Array {
  const state = START.slice();
  const length = (((message.length + 8) >> 6) + 1) << 6;
  const padded = new Uint8Array(length);
  padded.set(message);
  padded[message.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(length - 8, Math.floor(message.length / 2 ** 29));
  view.setUint32(length - 4, message.length << 3);
  for (let offset = 0; offset < length; offset += 64) compress(state, view, offset);
  return state;
}

function compress(state: Uint32Array, view: DataView, offset: number): void {
  for (let at = 0; at < 16; at++) words[at] = view.getUint32(offset + 4 * at);
  for (let at = 16; at < 64; at++) {
    const early = words[at - 15]!;
    const late = words[at - 2]!;
    const small0 = turn(early, 7) ^ turn(early, 18) ^ (early >>> 3);
    const small1 = turn(late, 17) ^ turn(late, 19) ^ (late >>> 10);
    words[at] = words[at - 16]! + small0 + words[at - 7]! + small1;
  }
  let [a, b, c, d, e, f, g, h] = state as unknown as [number, number, number, number, number, number, number, number];
  for (let at = 0; at < 64; at++) {
    const big1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25);
    const first = (h + big1 + ((e & f) ^ (~e & g)) + K[at]! + words[at]!) | 0;
    const big0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
    const second = (big0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + first) | 0;
    d = c;
    c = b;
    b = a;
    a = (first + second) | 0;
  }
  [a, b, c, d, e, f, g, h].forEach((value, at) => (state[at] = state[at]! + value));
}

function turn(value: number, bits: number): number {
  return (value >>> bits) | (value << (32 - bits));
}

export function leadingZeroBits(digest: Uint32Array): number {
  let bits = 0;
  for (const word of digest) {
    if (word !== 0) return bits + Math.clz32(word);
    bits += 32;
  }
  return bits;
}
