// Both forms with fetch and ArrayBuffers: node examples/fetch.mjs [URL]. Runs in a browser as well,
// where the service's SOFTXENT_CORS_ORIGINS names the page. SOFTXENT_KEY is the key, if one is needed.

const url = process.argv[2] ?? "http://127.0.0.1:8000";
const key = process.env.SOFTXENT_KEY;

const rows = 2;
const classes = 3;
const logits = new Float32Array([2.0, 1.0, 0.1, 0.5, 2.5, 0.3]);
const labels = new BigInt64Array([0n, 2n]);

async function post(mediaType, body) {
  const headers = { "Content-Type": mediaType };
  if (key) headers.Authorization = `Bearer ${key}`;
  const answer = await fetch(`${url}/v1/cross_entropy`, { method: "POST", headers, body });
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  return answer;
}

// The safetensors layout: the length of a header, the header in JSON, the numbers.
function toSafetensors(logits, labels) {
  const end = logits.byteLength + labels.byteLength;
  const header = new TextEncoder().encode(
    JSON.stringify({
      logits: { dtype: "F32", shape: [rows, classes], data_offsets: [0, logits.byteLength] },
      labels: { dtype: "I64", shape: [rows], data_offsets: [logits.byteLength, end] },
    }),
  );
  const body = new Uint8Array(8 + header.length + end);
  new DataView(body.buffer).setBigUint64(0, BigInt(header.length), true);
  body.set(header, 8);
  for (const [offset, array] of [[0, logits], [logits.byteLength, labels]]) {
    body.set(new Uint8Array(array.buffer), 8 + header.length + offset);
  }
  return body;
}

function fromSafetensors(buffer) {
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(buffer.slice(8, start)));
  const types = { F32: Float32Array, F64: Float64Array, I64: BigInt64Array };
  return Object.fromEntries(
    Object.entries(header).map(([name, { dtype, data_offsets: [begin, end] }]) => [
      name,
      // A copy, since an array's numbers must begin at a multiple of their size.
      new types[dtype](buffer.slice(start + begin, start + end)),
    ]),
  );
}

function check(form, loss, gradient) {
  console.log(`${form}: loss ${[...loss]}, gradient ${[...gradient]}`);
  for (let row = 0; row < rows; row++) {
    const sum = gradient.slice(row * classes, (row + 1) * classes).reduce((a, b) => a + b);
    if (!(Math.abs(sum) < 1e-6)) throw new Error(`row ${row} of the gradient sums to ${sum}`);
  }
}

const table = Array.from({ length: rows }, (_, row) => [
  ...logits.subarray(row * classes, (row + 1) * classes),
]);
const text = JSON.stringify({ logits: table, labels: [...labels].map(Number) });
const json = await (await post("application/json", text)).json();
check("JSON", json.loss, json.gradient.flat());

const body = toSafetensors(logits, labels);
const answer = await (await post("application/vnd.safetensors", body)).arrayBuffer();
const tensors = fromSafetensors(answer);
check("binary", tensors.loss, tensors.gradient);
