// Pixels that a triangle covers.

/**
 * Call visit(x, y, wa, wb, wc) for each pixel whose middle lies in a triangle, with the weights of its corners.
 *
 * @param area twice its area, with sign: cross product of b - a and c - a; not 0.
 */
export function overPixels(ax, ay, bx, by, cx, cy, area, width, height, visit) {
  const [left, right] = [Math.max(Math.ceil(Math.min(ax, bx, cx)), 0), Math.min(Math.floor(Math.max(ax, bx, cx)), width - 1)];
  const [top, bottom] = [Math.max(Math.ceil(Math.min(ay, by, cy)), 0), Math.min(Math.floor(Math.max(ay, by, cy)), height - 1)];
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      const wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area;
      const wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area;
      const wa = 1 - wb - wc;
      if (wa >= 0 && wb >= 0 && wc >= 0) visit(x, y, wa, wb, wc);
    }
  }
}
