// A worker that does the work of a challenge: it looks for a nonce such that SHA-256 of `token.nonce` begins with `bits` zero bits.
//
//   { token, bits } ──▶ here ──▶ nonce
//
// SHA-256 stands here once more because the browser's own is asynchronous: a call for each of 65,000 tries takes many times as long.

const PRIMES = [];
for (let n = 2; PRIMES.length < 64; n += 1) if (PRIMES.every((prime) => n % prime)) PRIMES.push(n);
const fraction = (root) => (root - Math.floor(root)) * 2 ** 32;
const ROUNDS = new Uint32Array(PRIMES.map((prime) => fraction(Math.cbrt(prime))));
const START = new Uint32Array(PRIMES.slice(0, 8).map((prime) => fraction(Math.sqrt(prime))));
const words = new Uint32Array(64);

const turn = (word, by) => (word >>> by) | (word << (32 - by));

/** Takes one block of 64 bytes into a state (FIPS 180-4, 6.2.2). */
function compress(state, bytes, from) {
  for (let n = 0; n < 16; n += 1) {
    const at = from + n * 4;
    words[n] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
  }
  for (let n = 16; n < 64; n += 1) {
    const [x, y] = [words[n - 15], words[n - 2]];
    words[n] = words[n - 16] + (turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) + words[n - 7] + (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10));
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let n = 0; n < 64; n += 1) {
    const first = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + ROUNDS[n] + words[n]) | 0;
    const second = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, n) => { state[n] += word; });
}

function solve({ token, bits }) {
  const encoder = new TextEncoder();
  const prefix = encoder.encode(`${token}.`);
  // What all tries have in common is hashed once.
  const whole = prefix.length - (prefix.length % 64);
  const middle = START.slice();
  for (let from = 0; from < whole; from += 64) compress(middle, prefix, from);
  const rest = prefix.subarray(whole);
  const state = new Uint32Array(8);
  for (let nonce = 0; ; nonce += 1) {
    const digits = encoder.encode(String(nonce));
    const length = rest.length + digits.length;
    const tail = new Uint8Array(length + 9 <= 64 ? 64 : 128);
    tail.set(rest);
    tail.set(digits, rest.length);
    tail[length] = 0x80;
    new DataView(tail.buffer).setUint32(tail.length - 4, (whole + length) * 8);
    state.set(middle);
    for (let from = 0; from < tail.length; from += 64) compress(state, tail, from);
    const zeros = state[0] ? Math.clz32(state[0]) : 32 + Math.clz32(state[1]);
    if (zeros >= bits) return String(nonce);
  }
}

addEventListener("message", ({ data }) => postMessage(solve(data)));
