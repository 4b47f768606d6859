// The face parts that a camera sees, drawn as a map of labels.

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
    const [left, right] = [Math.max(Math.ceil(Math.min(ax, bx, cx)), 0), Math.min(Math.floor(Math.max(ax, bx, cx)), width - 1)];
    const [top, bottom] = [Math.max(Math.ceil(Math.min(ay, by, cy)), 0), Math.min(Math.floor(Math.max(ay, by, cy)), height - 1)];
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        const wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area;
        const wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area;
        const wa = 1 - wb - wc;
        if (wa < 0 || wb < 0 || wc < 0) continue;
        const z = wa * depth[a] + wb * depth[b] + wc * depth[c];
        const pixel = y * width + x;
        if (z <= nearest[pixel]) continue;
        nearest[pixel] = z;
        const largest = wa >= wb && wa >= wc ? a : wb >= wc ? b : c;
        map[pixel] = labels[largest];
      }
    }
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
