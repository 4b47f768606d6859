// Geometry and skin of a head: the twin of reconstruct/glb.py and face_models/albedo_texture.py.

/** Unit normals [V * 3]: normalised unweighted sums of the unit normals of the triangles around. */
export function vertexNormals(vertices, triangles) {
  const normals = new Float32Array(vertices.length);
  for (let at = 0; at < triangles.length; at += 3) {
    const [a, b, c] = [triangles[at] * 3, triangles[at + 1] * 3, triangles[at + 2] * 3];
    const [ux, uy, uz] = [vertices[b] - vertices[a], vertices[b + 1] - vertices[a + 1], vertices[b + 2] - vertices[a + 2]];
    const [vx, vy, vz] = [vertices[c] - vertices[a], vertices[c + 1] - vertices[a + 1], vertices[c + 2] - vertices[a + 2]];
    const [x, y, z] = [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
    const length = Math.max(Math.sqrt(x * x + y * y + z * z), 1e-20);
    for (const corner of [a, b, c]) {
      normals[corner] += x / length;
      normals[corner + 1] += y / length;
      normals[corner + 2] += z / length;
    }
  }
  for (let at = 0; at < normals.length; at += 3) {
    const length = Math.max(Math.hypot(normals[at], normals[at + 1], normals[at + 2]), 1e-20);
    for (let axis = 0; axis < 3; axis++) normals[at + axis] /= length;
  }
  return normals;
}

/** Coefficients [K] with the first `count`, the named shapes, at 0. */
export function withoutShapes(exp, count) {
  return exp.map((value, index) => (index < count ? 0 : value));
}

/**
 * What each named shape moves the vertices by at weight 1, model units; does not depend on the person.
 *
 * @param decode function of (coefficients by name, B): a promise of the unposed vertices [B * V * 3].
 * @param count number of shapes.
 * @param sizes numbers of identity and expression coefficients.
 * @returns {Promise<Float32Array[]>} [V * 3] each.
 */
export async function shapeOffsets(decode, count, sizes) {
  const [ids, exps] = sizes;
  const neutral = await decode({ id: new Float32Array(ids), exp: new Float32Array(exps) }, 1);
  const offsets = [];
  const batch = 4; // more take more memory than a phone spares
  for (let start = 0; start < count; start += batch) {
    const rows = Math.min(batch, count - start);
    const exp = new Float32Array(rows * exps);
    for (let row = 0; row < rows; row++) exp[row * exps + start + row] = 1;
    const moved = await decode({ id: new Float32Array(rows * ids), exp }, rows);
    for (let row = 0; row < rows; row++) {
      const from = row * neutral.length;
      offsets.push(neutral.map((value, at) => moved[from + at] - value));
    }
  }
  return offsets;
}

/** Adds a small picture, enlarged bilinearly, to planes [3, size, size]. */
function addEnlarged(planes, size, small, side) {
  const ratio = side / size;
  for (let row = 0; row < size; row++) {
    const y = Math.max((row + 0.5) * ratio - 0.5, 0);
    const [top, fy] = [Math.floor(y), y - Math.floor(y)];
    const bottom = Math.min(top + 1, side - 1);
    for (let column = 0; column < size; column++) {
      const x = Math.max((column + 0.5) * ratio - 0.5, 0);
      const [left, fx] = [Math.floor(x), x - Math.floor(x)];
      const right = Math.min(left + 1, side - 1);
      for (let channel = 0; channel < 3; channel++) {
        const from = channel * side * side;
        const above = small[from + top * side + left] * (1 - fx) + small[from + top * side + right] * fx;
        const below = small[from + bottom * side + left] * (1 - fx) + small[from + bottom * side + right] * fx;
        planes[(channel * size + row) * size + column] += above * (1 - fy) + below * fy;
      }
    }
  }
}

function combined(weights, units, modes) {
  const count = modes.length / units.length;
  const sum = new Float32Array(count);
  weights.forEach((weight, mode) => {
    const factor = weight * units[mode];
    for (let at = 0; at < count; at++) sum[at] += factor * modes[mode * count + at];
  });
  return sum;
}

/**
 * The skin without light: RGBA [S, S, 4] bytes, row 0 at v = 1.
 *
 * @param alb coefficients [K].
 * @param arrays of the head, `albedo_mean` … as AlbedoTexture stores them.
 * @param size S.
 */
export function albedoTexture(alb, arrays, size) {
  const coarse = arrays.albedo_coarse_unit.length;
  const head = coarse ? alb.length - coarse - 2 : alb.length; // the last two modes are stored finely again
  const planes = new Float32Array(3 * size * size);
  const mean = Float32Array.from(arrays.albedo_mean, (value) => value / 255);
  addEnlarged(planes, size, mean, Math.sqrt(mean.length / 3));
  const layers = [
    ["fine", [...alb.slice(0, head), ...alb.slice(head + coarse)]],
    ["coarse", alb.slice(head, head + coarse)],
  ];
  for (const [name, weights] of layers) {
    if (!weights.length) continue;
    const sum = combined(weights, arrays[`albedo_${name}_unit`], arrays[`albedo_${name}`]);
    addEnlarged(planes, size, sum, Math.sqrt(sum.length / 3));
  }
  const out = new Uint8ClampedArray(size * size * 4).fill(255);
  for (let pixel = 0; pixel < size * size; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      out[pixel * 4 + channel] = Math.floor(255 * Math.min(Math.max(planes[channel * size * size + pixel], 0), 1) + 0.5);
    }
  }
  return { width: size, height: size, data: out };
}
