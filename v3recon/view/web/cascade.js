// MTCNN's cascade: the twin of light/cascade.py, which names paper and terms.
import { best, bestApart, corrected, squared } from "./boxes.js";
import { makeSumTable, resized, viewsOf } from "./pixels.js";

const CELL = 12;
const STRIDE = 2;
const BATCH = 512;

/**
 * Faces of a picture in no particular order.
 *
 * @param picture {width, height, data}, at most 8 million pixels.
 * @param detector three functions of (values, shape): promises of {score, correction}, each {data, dims}.
 * @param rule {min_face_size, thresholds, pyramid_step} of about.json.
 * @returns {Promise<{boxes: number[][], scores: number[]}>} pixels that count from 1.
 */
export async function runCascade(picture, detector, rule) {
  const table = makeSumTable(picture);
  const proposed = await propose(table, detector[0], rule);
  const second = await lookCloser(table, proposed, detector[1], 24, rule.thresholds[1]);
  const kept = best(second.boxes, second.scores, 0.7);
  const closer = kept.map((index) => squared(corrected(second.boxes[index], second.corrections[index], 1)));
  const third = await lookCloser(table, closer, detector[2], 48, rule.thresholds[2]);
  const boxes = third.boxes.map((box, index) => corrected(box, third.corrections[index], 1));
  const last = bestApart(boxes, third.scores, 0.7);
  return { boxes: last.map((index) => boxes[index]), scores: last.map((index) => third.scores[index]) };
}

async function propose(table, network, rule) {
  const found = [];
  let scale = CELL / rule.min_face_size;
  for (; Math.min(table.width, table.height) * scale >= CELL; scale *= rule.pyramid_step) {
    const [width, height] = [Math.trunc(table.width * scale + 1), Math.trunc(table.height * scale + 1)];
    const { score, correction } = await network(resized(table, width, height), [1, 3, height, width]);
    const columns = score.dims.at(-1);
    const count = score.data.length;
    const rows = [];
    score.data.forEach((own, place) => {
      if (own < rule.thresholds[0]) return;
      const [row, column] = [Math.floor(place / columns), place % columns];
      const start = [column, row].map((one) => Math.floor((STRIDE * one + 1) / scale));
      const end = [column, row].map((one) => Math.floor((STRIDE * one + CELL) / scale));
      const moved = [0, 1, 2, 3].map((side) => correction.data[side * count + place]);
      rows.push({ box: [...start, ...end], score: own, correction: moved });
    });
    found.push(...pick(rows, best(boxesOf(rows), scoresOf(rows), 0.5)));
  }
  const kept = pick(found, best(boxesOf(found), scoresOf(found), 0.7));
  return kept.map((row) => squared(corrected(row.box, row.correction, 0)));
}

const pick = (rows, kept) => kept.map((index) => rows[index]);
const boxesOf = (rows) => rows.map((row) => row.box);
const scoresOf = (rows) => rows.map((row) => row.score);

async function lookCloser(table, boxes, network, size, threshold) {
  const kept = [];
  const corners = [];
  for (const box of boxes) {
    const [left, top, right, bottom] = box.map(Math.trunc);
    const corner = [Math.max(left, 1) - 1, Math.max(top, 1) - 1, Math.min(right, table.width), Math.min(bottom, table.height)];
    if (corner[2] <= corner[0] || corner[3] <= corner[1]) continue;
    kept.push(box);
    corners.push(corner);
  }
  const result = { boxes: [], scores: [], corrections: [] };
  for (let start = 0; start < corners.length; start += BATCH) {
    const part = corners.slice(start, start + BATCH);
    const { score, correction } = await network(viewsOf(table, part, size), [part.length, 3, size, size]);
    part.forEach((_, index) => {
      if (score.data[index] <= threshold) return;
      result.boxes.push(kept[start + index]);
      result.scores.push(score.data[index]);
      result.corrections.push(Array.from(correction.data.slice(index * 4, index * 4 + 4)));
    });
  }
  return result;
}
