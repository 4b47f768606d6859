// Boxes [left, top, right, bottom] of faces: the twin of the helpers of light/cascade.py.

/** Indices of numbers from the greatest to the smallest; equal ones keep their order. */
export function descending(numbers) {
  return Array.from(numbers, (_, index) => index).sort((a, b) => numbers[b] - numbers[a] || a - b);
}

/** Area that two boxes share; `extra` 1 counts both border pixels. */
export function commonArea(one, other, extra) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]) + extra;
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]) + extra;
  return Math.max(width, 0) * Math.max(height, 0);
}

const areaOf = (box, extra) => (box[2] - box[0] + extra) * (box[3] - box[1] + extra);

/** Indices of boxes that share at most `overlap` of the union with a better one. */
export function best(boxes, scores, overlap) {
  const kept = [];
  for (const number of descending(scores)) {
    const worse = kept.some((other) => {
      const common = commonArea(boxes[other], boxes[number], 0);
      return common > overlap * (areaOf(boxes[other], 0) + areaOf(boxes[number], 0) - common);
    });
    if (!worse) kept.push(number);
  }
  return kept;
}

/** Indices of boxes that share at most `share` of the smaller one with a better one. */
export function bestApart(boxes, scores, share) {
  const kept = [];
  for (const number of descending(scores)) {
    const worse = kept.some((other) => {
      const smaller = Math.min(areaOf(boxes[other], 1), areaOf(boxes[number], 1));
      return commonArea(boxes[number], boxes[other], 1) > share * smaller;
    });
    if (!worse) kept.push(number);
  }
  return kept;
}

/** A box moved by a network's correction [4], parts of its sides. */
export function corrected(box, correction, extra) {
  const sides = [box[2] - box[0] + extra, box[3] - box[1] + extra];
  return box.map((edge, side) => edge + correction[side] * sides[side % 2]);
}

/** The square around a box's middle with its longer side. */
export function squared(box) {
  const [width, height] = [box[2] - box[0], box[3] - box[1]];
  const longer = Math.max(width, height);
  const [left, top] = [box[0] + (width - longer) / 2, box[1] + (height - longer) / 2];
  return [left, top, left + longer, top + longer];
}
