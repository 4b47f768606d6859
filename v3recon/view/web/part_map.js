// The face parts that a camera sees, drawn as a map of labels.
import { overPixels } from "./triangle_pixels.js";

/** Smallest box [left, top, right, bottom] of the points [V * 2] of vertices with a label. */
export function labelledBox(points, labels) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  labels.forEach((label, vertex) => {
    if (!label) return;
    for (let axis = 0; axis < 2; axis++) {
      box[axis] = Math.min(box[axis], points[vertex * 2 + axis]);
      box[axis + 2] = Math.max(box[axis + 2], points[vertex * 2 + axis]);
    }
  });
  return box;
}

/**
 * Labels of the nearest surface at each pixel; 0 where no part is seen.
 *
 * @param points [V * 2] pixels of the map, whole numbers in the middle of pixels.
 * @param depth [V] greater is nearer.
 * @param triangles [F * 3].
 * @param labels [V].
 * @returns {{map: Uint8Array, depth: Float32Array}} [height, width] each; depth of the nearest surface.
 */
export function partMap(points, depth, triangles, labels, width, height) {
  const map = new Uint8Array(width * height);
  const nearest = new Float32Array(width * height).fill(-Infinity);
  for (let at = 0; at < triangles.length; at += 3) {
    const [a, b, c] = [triangles[at], triangles[at + 1], triangles[at + 2]];
    const [ax, ay, bx, by, cx, cy] = [a, b, c].flatMap((one) => [points[one * 2], points[one * 2 + 1]]);
    const area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);
    if (area >= 0) continue; // y is down: triangles that show their back
    overPixels(ax, ay, bx, by, cx, cy, area, width, height, (x, y, wa, wb, wc) => {
      const z = wa * depth[a] + wb * depth[b] + wc * depth[c];
      const pixel = y * width + x;
      if (z <= nearest[pixel]) return;
      nearest[pixel] = z;
      const largest = wa >= wb && wa >= wc ? a : wb >= wc ? b : c;
      map[pixel] = labels[largest];
    });
  }
  return { map, depth: nearest };
}

/** Whether each pixel of a map lies at the border of its part; pixels without part do not. */
export function borders(map, width, height) {
  const found = new Uint8Array(map.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      if (!map[at]) continue;
      const differs =
        x === 0 || y === 0 || x === width - 1 || y === height - 1 ||
        map[at - 1] !== map[at] || map[at + 1] !== map[at] ||
        map[at - width] !== map[at] || map[at + width] !== map[at];
      found[at] = differs ? 1 : 0;
    }
  }
  return found;
}
