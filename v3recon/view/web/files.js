// Files of the site: fetched once, unpacked, arrays taken out of them.

const ARRAYS = { uint8: Uint8Array, int8: Int8Array, uint32: Uint32Array, float32: Float32Array };

/** Bytes, unpacked if they are gzip's: some servers unpack by themselves. */
export async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * A file's bytes.
 *
 * @param name of a file beside the page.
 * @param onBytes is told how many more bytes have come.
 */
export async function fetchFile(name, onBytes = () => {}) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name} is missing on this server (${answer.status})`);
  const chunks = [];
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    onBytes(value.length);
  }
  const bytes = new Uint8Array(await new Blob(chunks).arrayBuffer());
  return unpacked(bytes);
}

/** Arrays by name out of joined bytes; `listed` says type, shape and offset of each. */
export function arraysOf(bytes, listed) {
  return Object.fromEntries(
    Object.entries(listed).map(([name, { type, shape, offset }]) => {
      const count = shape.reduce((a, b) => a * b, 1);
      return [name, new ARRAYS[type](bytes.buffer, bytes.byteOffset + offset, count)];
    }),
  );
}
