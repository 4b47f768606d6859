// Everything behind the page without the page: files loaded, photos to faces, faces to heads.
import { arraysOf, fetchFile } from "./files.js";
import { findFaces } from "./faces.js";
import { writeGlb } from "./glb.js";
import { albedoTexture, shapeOffsets, vertexNormals, withoutShapes } from "./mesh.js";
import { makeNetwork, setRuntime } from "./networks.js";
import { borders, labelledBox, partMap } from "./part_map.js";
import { pictureOf } from "./pixels.js";
import { photoSkin, trustOf, uvLayout } from "./skin.js";

const RUNTIME = "ort-wasm-simd-threaded.wasm.gz";
const NETWORKS = ["network.onnx.gz", "detector_1.onnx.gz", "detector_2.onnx.gz", "detector_3.onnx.gz"];
const TEXTURE_SIZE = 1024;
const SKIN = 0; // place of the skin among the surfaces
const MAP_SIDE = 448; // pixels of a map of parts, longer side

/** Runs calls one after the other: the runtime does one thing at a time. */
function makeQueue() {
  let last = Promise.resolve();
  return (work) => {
    const result = last.then(work);
    last = result.catch(() => {});
    return result;
  };
}

/**
 * Load what finds faces; what makes heads is loaded at the first call that needs it.
 *
 * @param onProgress is told (loaded, total) bytes.
 * @returns {Promise<object>} {about, reconstruct, makeParts, makeHead}.
 */
export async function loadReconstructor(onProgress = () => {}) {
  const about = JSON.parse(new TextDecoder().decode(await fetchFile("about.json")));
  const names = [RUNTIME, ...NETWORKS];
  const total = names.reduce((sum, name) => sum + about.files[name], 0);
  let loaded = 0;
  const [wasm, ...files] = await Promise.all(
    names.map((name) => fetchFile(name, (count) => onProgress((loaded += count), total))),
  );
  setRuntime(wasm);
  const sessions = [];
  for (const bytes of files) sessions.push(await makeNetwork(bytes));
  const [network, ...detector] = sessions;
  const networks = {
    network: (data, dims) => network({ image: { data, dims } }),
    detector: detector.map((one) => (data, dims) => one({ views: { data, dims } })),
  };
  const inTurn = makeQueue();
  let model = null;
  const head = () => (model ??= loadHead(about));
  return {
    about,
    /** Faces of an ImageData, see `findFaces`. */
    reconstruct: (imageData) => inTurn(() => findFaces(pictureOf(imageData), networks, about)),
    makeParts: (face) => inTurn(async () => partsOf(face, await head())),
    makeHead: (face, name, imageData = null) =>
      inTurn(async () => headOf(face, name, imageData && pictureOf(imageData), await head(), about)),
  };
}

async function loadHead(about) {
  const [decoder, bytes] = await Promise.all(["decode.onnx.gz", "head.bin.gz"].map((name) => fetchFile(name)));
  const run = await makeNetwork(decoder);
  const [ids, exps] = about.sizes;
  /** Vertices and points of B faces; pose {angle, trans} default none. */
  const decode = ({ id, exp, angle, trans }, count) =>
    run({
      id: { data: Float32Array.from(id), dims: [count, ids] },
      exp: { data: Float32Array.from(exp), dims: [count, exps] },
      angle: { data: Float32Array.from(angle ?? Array(3 * count).fill(0)), dims: [count, 3] },
      trans: { data: Float32Array.from(trans ?? Array(3 * count).fill(0)), dims: [count, 3] },
    });
  const unposed = async (inputs, count) => (await decode(inputs, count)).vertices.data;
  const offsets = await shapeOffsets(unposed, about.head.shapes.length, [ids, exps]);
  const arrays = arraysOf(bytes, about.head.arrays);
  const isSkin = new Uint8Array(about.head.vertex_count);
  arrays.triangles.forEach((vertex, corner) => {
    if (arrays.triangle_surfaces[Math.floor(corner / 3)] === SKIN) isSkin[vertex] = 1;
  });
  const layout = uvLayout(arrays.uv_coords, arrays.triangles, TEXTURE_SIZE);
  return { decode, unposed, offsets, arrays, isSkin, layout };
}

/** A posed face as the camera sees it: vertices in a map's pixels, the map, and where it lies in the photo. */
async function viewOf(face, { decode, arrays }) {
  const { points, vertices } = await decode(face.coefficients, 1);
  const labels = arrays.part_labels;
  const [left, top, right, bottom] = labelledBox(points.data, labels);
  const scale = MAP_SIDE / Math.max(right - left, bottom - top); // pixels of the map a pixel of the crop's frame
  const [width, height] = [right - left, bottom - top].map((side) => Math.ceil(side * scale) + 1);
  const placed = points.data.map((value, at) => (value - (at % 2 ? top : left)) * scale);
  const depths = Float32Array.from(labels, (_, vertex) => vertices.data[vertex * 3 + 2]);
  const seen = partMap(placed, depths, arrays.triangles, labels, width, height);
  return { points: points.data, vertices: vertices.data, placed, left, top, scale, width, height, ...seen };
}

/** What is seen of a face's parts: {map, border, width, height, box}, the box [left, top, width, height] in the photo's pixels. */
async function partsOf(face, model) {
  const { map, width, height, left, top, scale } = await viewOf(face, model);
  const { ratio, x, y } = face.square;
  const half = 0.5 / scale;
  // A canvas counts from the corner of the first pixel, points from its middle.
  const corner = [(left - half - x) / ratio + 0.5, (top - half - y) / ratio + 0.5];
  const box = [...corner, width / scale / ratio, height / scale / ratio];
  return { map, border: borders(map, width, height), width, height, box };
}

/** A face's texture from its photo. */
async function skinOf(face, photo, model, painted) {
  const { arrays, layout, isSkin } = model;
  const view = await viewOf(face, model);
  const normals = vertexNormals(view.vertices, arrays.triangles);
  const trust = trustOf(view, view.placed, view.vertices, normals, arrays.part_labels, isSkin, arrays.triangles);
  const { ratio, x, y } = face.square;
  const points = view.points.map((value, at) => (value - (at % 2 ? y : x)) / ratio);
  return photoSkin(photo, points, trust, layout, arrays.triangles, isSkin, painted);
}

/** A face as a head in metres: what `writeGlb` takes, the weights of its shapes, and its skin, of the model without a photo. */
async function headOf(face, name, photo, model, about) {
  const { unposed, offsets, arrays } = model;
  const { id, exp, alb } = face.coefficients;
  const count = about.head.shapes.length;
  const vertices = await unposed({ id, exp: withoutShapes(exp, count) }, 1);
  const triangles = arrays.triangles;
  const normals = vertexNormals(vertices, triangles);
  const turns = offsets.map((offset) => {
    const turned = vertexNormals(vertices.map((value, at) => value + offset[at]), triangles);
    return turned.map((value, at) => value - normals[at]);
  });
  const metres = (values) => values.map((value) => value * about.head.metres);
  const mesh = {
    name,
    vertices: metres(vertices),
    normals,
    uvCoords: arrays.uv_coords,
    triangles,
    triangleSurfaces: arrays.triangle_surfaces,
    offsets: offsets.map(metres),
    turns,
  };
  const painted = albedoTexture(alb, arrays, TEXTURE_SIZE);
  const skin = photo ? await skinOf(face, photo, model, painted) : painted;
  return { mesh, weights: exp.slice(0, count), skin };
}

/** The bytes of a head's .glb file; `jpeg` is its skin. */
export function glbOf(head, weights, jpeg, about) {
  return writeGlb(head.mesh, about.head.surfaces, about.head.shapes, weights, jpeg);
}
