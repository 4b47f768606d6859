// A head as glTF 2.0 in one binary file: the twin of io/glb.py.

const FLOAT = 5126;
const [UNSIGNED_BYTE, UNSIGNED_SHORT, UNSIGNED_INT] = [5121, 5123, 5125];
const [ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER] = [34962, 34963];
const [LINEAR_MIPMAP_LINEAR, LINEAR, CLAMP_TO_EDGE] = [9987, 9729, 33071];
const SPARSE_BELOW = 0.75; // part of moved vertices up to which a sparse accessor is shorter
export const SMALLEST = 2e-5; // metres: displacements up to this are left out
export const SMALLEST_TURN = 0.05; // changes of unit normals up to this are left out

/** The binary chunk as it grows, with the views and accessors that say what lies where. */
class Content {
  constructor() {
    this.chunks = [];
    this.length = 0;
    this.views = [];
    this.accessors = [];
  }

  view(values, target) {
    const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    const view = { buffer: 0, byteOffset: this.length, byteLength: data.length };
    if (target) view.target = target;
    const padding = (4 - (data.length % 4)) % 4;
    this.chunks.push(data, new Uint8Array(padding));
    this.length += data.length + padding;
    this.views.push(view);
    return this.views.length - 1;
  }

  accessor(accessor, bounded) {
    if (bounded) {
      const low = [Infinity, Infinity, Infinity];
      const high = [-Infinity, -Infinity, -Infinity];
      bounded.forEach((value, at) => {
        low[at % 3] = Math.min(low[at % 3], value);
        high[at % 3] = Math.max(high[at % 3], value);
      });
      Object.assign(accessor, { min: low, max: high });
    }
    this.accessors.push(accessor);
    return this.accessors.length - 1;
  }

  values(values, width, bounded = false) {
    const view = this.view(values, ARRAY_BUFFER);
    const accessor = { bufferView: view, componentType: FLOAT, count: values.length / width, type: `VEC${width}` };
    return this.accessor(accessor, bounded ? values : null);
  }

  indices(indices, count) {
    const { array, code } = integers(indices, count);
    const view = this.view(array, ELEMENT_ARRAY_BUFFER);
    return this.accessor({ bufferView: view, componentType: code, count: indices.length, type: "SCALAR" });
  }

  /** Vectors that are mostly zero. */
  displacements(values, smallest, bounded = false) {
    const count = values.length / 3;
    const moved = [];
    for (let at = 0; at < count; at++) {
      if (Math.hypot(values[at * 3], values[at * 3 + 1], values[at * 3 + 2]) > smallest) moved.push(at);
    }
    if (moved.length > SPARSE_BELOW * count) return this.values(values, 3, bounded);
    const accessor = { componentType: FLOAT, count, type: "VEC3" };
    const kept = new Float32Array(values.length);
    const own = new Float32Array(moved.length * 3);
    moved.forEach((vertex, place) => {
      const one = values.subarray(vertex * 3, vertex * 3 + 3);
      kept.set(one, vertex * 3);
      own.set(one, place * 3);
    });
    if (moved.length) {
      const { array, code } = integers(moved, count);
      accessor.sparse = {
        count: moved.length,
        indices: { bufferView: this.view(array), componentType: code },
        values: { bufferView: this.view(own) },
      };
    }
    return this.accessor(accessor, bounded ? kept : null);
  }
}

/** Whole numbers below `count` in the smallest type; its greatest value is reserved by glTF. */
function integers(numbers, count) {
  if (count <= 255) return { array: Uint8Array.from(numbers), code: UNSIGNED_BYTE };
  if (count <= 65535) return { array: Uint16Array.from(numbers), code: UNSIGNED_SHORT };
  return { array: Uint32Array.from(numbers), code: UNSIGNED_INT };
}

/** Rows of `width` numbers of chosen vertices. */
function rowsOf(values, used, width) {
  const out = new Float32Array(used.length * width);
  used.forEach((vertex, place) => {
    for (let axis = 0; axis < width; axis++) out[place * width + axis] = values[vertex * width + axis];
  });
  return out;
}

/** Normals of length 1; those of vertices without a triangle's area point to the front. */
function unit(normals) {
  for (let at = 0; at < normals.length; at += 3) {
    const length = Math.hypot(normals[at], normals[at + 1], normals[at + 2]);
    if (length > 1e-6) for (let axis = 0; axis < 3; axis++) normals[at + axis] /= length;
    else normals.set([0, 0, 1], at);
  }
  return normals;
}

function primitive(head, surface, material, content) {
  const corners = [];
  for (let triangle = 0; triangle < head.triangleSurfaces.length; triangle++) {
    if (head.triangleSurfaces[triangle] !== surface) continue;
    for (let corner = 0; corner < 3; corner++) corners.push(head.triangles[triangle * 3 + corner]);
  }
  const used = Array.from(new Set(corners)).sort((a, b) => a - b);
  const place = new Map(used.map((vertex, index) => [vertex, index]));
  const uvCoords = rowsOf(head.uvCoords, used, 2).map((value, at) => (at % 2 ? 1 - value : value));
  const attributes = {
    POSITION: content.values(rowsOf(head.vertices, used, 3), 3, true),
    NORMAL: content.values(unit(rowsOf(head.normals, used, 3)), 3),
    TEXCOORD_0: content.values(uvCoords, 2),
  };
  const indices = content.indices(corners.map((vertex) => place.get(vertex)), used.length);
  const targets = head.offsets.map((offsets, shape) => ({
    POSITION: content.displacements(rowsOf(offsets, used, 3), SMALLEST, true),
    NORMAL: content.displacements(rowsOf(head.turns[shape], used, 3), SMALLEST_TURN),
  }));
  return { attributes, indices, material, targets };
}

/**
 * A head as the bytes of a .glb file.
 *
 * @param head {name, vertices, normals, uvCoords, triangles, triangleSurfaces, offsets, turns} of all
 *   vertices, metres, y up, v up; offsets and turns one array a shape.
 * @param surfaces [{name, roughness}].
 * @param shapes names of the morph targets.
 * @param weights of the morph targets.
 * @param texture bytes of a JPEG file, row 0 at v = 1.
 * @returns {Uint8Array}
 */
export function writeGlb(head, surfaces, shapes, weights, texture) {
  const content = new Content();
  const primitives = surfaces.map((_, surface) => primitive(head, surface, surface, content));
  const image = content.view(texture);
  const document = {
    asset: { version: "2.0", generator: "v3recon" },
    scene: 0,
    scenes: [{ nodes: [0] }],
    nodes: [{ name: head.name, mesh: 0 }],
    meshes: [{ name: head.name, primitives, weights: Array.from(weights), extras: { targetNames: shapes } }],
    materials: surfaces.map(({ name, roughness }) => ({
      name,
      pbrMetallicRoughness: { metallicFactor: 0, roughnessFactor: roughness, baseColorTexture: { index: 0 } },
    })),
    images: [{ name: `${head.name}_color`, mimeType: "image/jpeg", bufferView: image }],
    samplers: [{ magFilter: LINEAR, minFilter: LINEAR_MIPMAP_LINEAR, wrapS: CLAMP_TO_EDGE, wrapT: CLAMP_TO_EDGE }],
    textures: [{ source: 0, sampler: 0 }],
    bufferViews: content.views,
    accessors: content.accessors,
    buffers: [{ byteLength: content.length }],
  };
  return joined(JSON.stringify(document), content);
}

function joined(json, content) {
  let text = new TextEncoder().encode(json);
  const padding = (4 - (text.length % 4)) % 4;
  const total = 12 + 8 + text.length + padding + 8 + content.length;
  const bytes = new Uint8Array(total).fill(0x20, 20, 20 + text.length + padding);
  const view = new DataView(bytes.buffer);
  const word = (at, value) => view.setUint32(at, value, true);
  word(0, 0x46546c67); // glTF
  word(4, 2);
  word(8, total);
  word(12, text.length + padding);
  word(16, 0x4e4f534a); // JSON
  bytes.set(text, 20);
  let at = 20 + text.length + padding;
  word(at, content.length);
  word(at + 4, 0x004e4942); // BIN
  at += 8;
  for (const chunk of content.chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}
