// A head's texture from its photo; what the camera did not see comes from the model's skin in the photo's colours.
import { overPixels } from "./triangle_pixels.js";

const FACING = [0.35, 0.7]; // cosine of the angle to the camera: from where on, and from where on fully
const BEHIND = 0.03; // decimetres: a vertex this far behind the nearest surface is hidden
const ROUNDS = 6; // that weights are smoothed along the mesh
const COARSE = 128; // side of the map of colour ratios
const DARK = 8; // levels added to both sides of a ratio

/** For each texel its triangle (-1 none) and the weights of the first two corners; row 0 at v = 1. */
export function uvLayout(uvCoords, triangles, size) {
  const triangle = new Int32Array(size * size).fill(-1);
  const shares = new Float32Array(size * size * 2);
  const place = (vertex) => [uvCoords[vertex * 2] * size - 0.5, (1 - uvCoords[vertex * 2 + 1]) * size - 0.5];
  for (let at = 0; at < triangles.length; at += 3) {
    const [ax, ay] = place(triangles[at]);
    const [bx, by] = place(triangles[at + 1]);
    const [cx, cy] = place(triangles[at + 2]);
    const area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);
    if (!area) continue;
    overPixels(ax, ay, bx, by, cx, cy, area, size, size, (x, y, wa, wb) => {
      const texel = y * size + x;
      triangle[texel] = at / 3;
      shares[texel * 2] = wa;
      shares[texel * 2 + 1] = wb;
    });
  }
  return { size, triangle, shares };
}

/** Means over each vertex and its neighbours; never more than before, so that borders move inward. */
function smoothedInward(weights, triangles) {
  const sum = Float32Array.from(weights);
  const count = new Float32Array(weights.length).fill(1);
  for (let at = 0; at < triangles.length; at += 3) {
    for (let corner = 0; corner < 3; corner++) {
      const [one, next] = [triangles[at + corner], triangles[at + ((corner + 1) % 3)]];
      sum[one] += weights[next];
      sum[next] += weights[one];
      count[one] += 1;
      count[next] += 1;
    }
  }
  return weights.map((own, vertex) => Math.min(own, sum[vertex] / count[vertex]));
}

/**
 * How far the photo is to be trusted at each vertex, 0…1.
 *
 * @param seen {depth [height, width] of the nearest surface, width, height}.
 * @param placed [V * 2] vertices in its pixels.
 * @param vertices, normals [V * 3] posed, toward the camera +z.
 * @param labels [V] parts; vertices of none are not taken.
 * @param isSkin [V].
 */
export function trustOf(seen, placed, vertices, normals, labels, isSkin, triangles) {
  const [from, fully] = FACING;
  let weights = Float32Array.from(labels, (label, vertex) => {
    if (!label || !isSkin[vertex]) return 0;
    const [x, y] = [Math.round(placed[vertex * 2]), Math.round(placed[vertex * 2 + 1])];
    if (x < 0 || y < 0 || x >= seen.width || y >= seen.height) return 0;
    if (vertices[vertex * 3 + 2] < seen.depth[y * seen.width + x] - BEHIND) return 0;
    return Math.min(Math.max((normals[vertex * 3 + 2] - from) / (fully - from), 0), 1);
  });
  for (let round = 0; round < ROUNDS; round++) weights = smoothedInward(weights, triangles);
  return weights;
}

/** Bilinear sample of a photo into `out`; whether the place is inside. */
function sample({ width, height, data }, x, y, out) {
  if (x < 0 || y < 0 || x > width - 1 || y > height - 1) return false;
  const [left, top] = [Math.min(Math.floor(x), width - 2), Math.min(Math.floor(y), height - 2)];
  if (left < 0 || top < 0) return false;
  const [fx, fy] = [x - left, y - top];
  const at = (top * width + left) * 3;
  for (let channel = 0; channel < 3; channel++) {
    const above = data[at + channel] * (1 - fx) + data[at + 3 + channel] * fx;
    const below = data[at + width * 3 + channel] * (1 - fx) + data[at + (width + 1) * 3 + channel] * fx;
    out[channel] = above * (1 - fy) + below * fy;
  }
  return true;
}

/** Fills a map [side, side, 3] where its weight is 0 from ever coarser averages (pull-push). */
export function filled(values, weights, side) {
  if (side === 1) return values;
  const half = side / 2;
  const coarse = new Float32Array(half * half * 3);
  const sure = new Float32Array(half * half);
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const [from, to] = [row * side + column, (row >> 1) * half + (column >> 1)];
      sure[to] += weights[from];
      for (let channel = 0; channel < 3; channel++) coarse[to * 3 + channel] += weights[from] * values[from * 3 + channel];
    }
  }
  for (let at = 0; at < sure.length; at++) {
    if (!sure[at]) continue;
    for (let channel = 0; channel < 3; channel++) coarse[at * 3 + channel] /= sure[at];
    sure[at] = Math.min(sure[at], 1);
  }
  const behind = filled(coarse, sure, half);
  const out = new Float32Array(values.length);
  for (let row = 0; row < side; row++) {
    const y = Math.min(Math.max((row + 0.5) / 2 - 0.5, 0), half - 1);
    const [top, fy] = [Math.floor(y), y - Math.floor(y)];
    const bottom = Math.min(top + 1, half - 1);
    for (let column = 0; column < side; column++) {
      const x = Math.min(Math.max((column + 0.5) / 2 - 0.5, 0), half - 1);
      const [left, fx] = [Math.floor(x), x - Math.floor(x)];
      const right = Math.min(left + 1, half - 1);
      const at = row * side + column;
      const own = Math.min(weights[at], 1);
      for (let channel = 0; channel < 3; channel++) {
        const above = behind[(top * half + left) * 3 + channel] * (1 - fx) + behind[(top * half + right) * 3 + channel] * fx;
        const below = behind[(bottom * half + left) * 3 + channel] * (1 - fx) + behind[(bottom * half + right) * 3 + channel] * fx;
        out[at * 3 + channel] = own * values[at * 3 + channel] + (1 - own) * (above * (1 - fy) + below * fy);
      }
    }
  }
  return out;
}

/**
 * A head's texture, RGBA [S, S, 4] bytes.
 *
 * @param photo {width, height, data}.
 * @param points [V * 2] vertices in the photo's pixels.
 * @param trust [V], see `trustOf`.
 * @param layout see `uvLayout`.
 * @param triangles [F * 3].
 * @param isSkin [V]; eyes, teeth and tongue keep the model's colours.
 * @param model {width, data} the model's own texture of the same size.
 */
export function photoSkin(photo, points, trust, layout, triangles, isSkin, model) {
  const { size, triangle, shares } = layout;
  const colors = new Float32Array(size * size * 3);
  const sure = new Float32Array(size * size);
  const skin = new Uint8Array(size * size).fill(1); // beyond the outline too: viewers blur textures
  const found = [0, 0, 0];
  for (let texel = 0; texel < size * size; texel++) {
    if (triangle[texel] < 0) continue;
    const corners = [0, 1, 2].map((corner) => triangles[triangle[texel] * 3 + corner]);
    skin[texel] = isSkin[corners[0]];
    const weights = [shares[texel * 2], shares[texel * 2 + 1], 1 - shares[texel * 2] - shares[texel * 2 + 1]];
    const mixed = (of) => weights[0] * of(corners[0]) + weights[1] * of(corners[1]) + weights[2] * of(corners[2]);
    const own = mixed((vertex) => trust[vertex]);
    if (!(own > 0)) continue;
    if (!sample(photo, mixed((vertex) => points[vertex * 2]), mixed((vertex) => points[vertex * 2 + 1]), found)) continue;
    sure[texel] = own;
    colors.set(found, texel * 3);
  }
  const ratios = colorRatios(colors, sure, model, size);
  return joined(colors, sure, skin, ratios, model, size);
}

/** Photo over model on a coarse grid, continued to where the photo shows nothing: [COARSE, COARSE, 3]. */
function colorRatios(colors, sure, model, size) {
  const step = size / COARSE;
  const sums = [new Float32Array(COARSE * COARSE * 3), new Float32Array(COARSE * COARSE * 3)];
  const weights = new Float32Array(COARSE * COARSE);
  for (let texel = 0; texel < size * size; texel++) {
    if (!sure[texel]) continue;
    const at = Math.floor(Math.floor(texel / size) / step) * COARSE + Math.floor((texel % size) / step);
    weights[at] += sure[texel] / (step * step);
    for (let channel = 0; channel < 3; channel++) {
      sums[0][at * 3 + channel] += (sure[texel] * (colors[texel * 3 + channel] + DARK)) / (step * step);
      sums[1][at * 3 + channel] += (sure[texel] * (model.data[texel * 4 + channel] + DARK)) / (step * step);
    }
  }
  const ratios = sums[0].map((value, at) => (sums[1][at] ? Math.log(value / sums[1][at]) : 0));
  return filled(ratios, weights, COARSE).map(Math.exp);
}

function joined(colors, sure, skin, ratios, model, size) {
  const out = new Uint8ClampedArray(model.data);
  for (let row = 0; row < size; row++) {
    const y = Math.min(Math.max(((row + 0.5) * COARSE) / size - 0.5, 0), COARSE - 1);
    const [top, fy] = [Math.floor(y), y - Math.floor(y)];
    const bottom = Math.min(top + 1, COARSE - 1);
    for (let column = 0; column < size; column++) {
      const texel = row * size + column;
      if (!skin[texel]) continue;
      const x = Math.min(Math.max(((column + 0.5) * COARSE) / size - 0.5, 0), COARSE - 1);
      const [left, fx] = [Math.floor(x), x - Math.floor(x)];
      const right = Math.min(left + 1, COARSE - 1);
      for (let channel = 0; channel < 3; channel++) {
        const at = (line, place) => ratios[(line * COARSE + place) * 3 + channel];
        const ratio = (at(top, left) * (1 - fx) + at(top, right) * fx) * (1 - fy) + (at(bottom, left) * (1 - fx) + at(bottom, right) * fx) * fy;
        const painted = (model.data[texel * 4 + channel] + DARK) * ratio - DARK;
        const own = Math.min(sure[texel], 1);
        out[texel * 4 + channel] = own * colors[texel * 3 + channel] + (1 - own) * painted;
      }
    }
  }
  return { width: size, height: size, data: out };
}
