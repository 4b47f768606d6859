// Photo to faces: the twin of light/reconstructor.py. An upright square of a photo is {ratio, x, y}:
// pixel p of the photo is pixel ratio * p + (x, y) of the crop's frame.
import { descending } from "./boxes.js";
import { runCascade } from "./cascade.js";
import { cropSquare, shrunk } from "./pixels.js";

export const COEFFICIENTS = ["id", "exp", "alb", "angle", "sh", "trans"];
export const LANDMARKS = ["landmarks_68", "landmarks_106", "landmarks_134"];

/** The square of `frame` pixels around a middle. */
export function squareAround([x, y], side, frame) {
  const ratio = frame / Math.max(side, 1e-6);
  return { ratio, x: (frame - 1) / 2 - ratio * x, y: (frame - 1) / 2 - ratio * y };
}

/** The crop of a detected box. */
export function squareOfDetection(box, rule, frame) {
  const longer = Math.max(box[2] - box[0], box[3] - box[1]);
  const middle = [0, 1].map((axis) => (box[axis] + box[axis + 2]) / 2 + rule.box_shift[axis] * longer);
  return squareAround(middle, rule.scale * rule.box_scale * longer, frame);
}

/** The crop of 68 points [[x, y], …] of an earlier look. */
export function squareOfLandmarks(points, rule, frame) {
  const ranges = [0, 1].map((axis) => {
    const values = points.map((point) => point[axis]);
    return [Math.min(...values), Math.max(...values)];
  });
  const side = rule.scale * Math.max(...ranges.map(([low, high]) => high - low));
  return squareAround(ranges.map(([low, high]) => (low + high) / 2), side, frame);
}

/** Points of the crop's frame [L * 2] in the photo's pixels [[x, y], …]. */
export function toPhoto(values, square) {
  const points = [];
  for (let at = 0; at < values.length; at += 2) {
    points.push([Math.fround((values[at] - square.x) / square.ratio), Math.fround((values[at + 1] - square.y) / square.ratio)]);
  }
  return points;
}

/** Boxes in the photo's pixels with scores, the largest first. */
export async function detect(photo, detector, rule) {
  const scale = Math.min(1, rule.max_side / Math.max(photo.width, photo.height));
  const small = scale < 1 ? shrunk(photo, ...[photo.width, photo.height].map((side) => Math.max(1, Math.round(side * scale)))) : photo;
  const { boxes, scores } = await runCascade(small, detector, rule);
  const ratio = [photo.width / small.width, photo.height / small.height];
  const sure = boxes
    .map((box, index) => ({ box: box.map((edge, side) => (edge + 0.5) * ratio[side % 2] - 0.5), score: scores[index] }))
    .filter(({ score }) => score >= rule.min_confidence);
  const side = (low, high) => Math.max(high - low, 0);
  return descending(sure.map(({ box }) => side(box[0], box[2]) * side(box[1], box[3]))).map((index) => sure[index]);
}

/** Input of the network [N, 3, S, S] in 0…1. */
export function cropsOf(photo, squares, frame, size) {
  const ratio = size / frame;
  const plane = size * size;
  const out = new Float32Array(squares.length * 3 * plane);
  squares.forEach((square, number) => {
    const [x, y] = [square.x, square.y].map((shift) => shift * ratio + 0.5 * ratio - 0.5);
    const crop = cropSquare(photo, { ratio: square.ratio * ratio, x, y }, size);
    for (let pixel = 0; pixel < plane; pixel++) {
      for (let channel = 0; channel < 3; channel++) {
        out[(number * 3 + channel) * plane + pixel] = crop[pixel * 3 + channel] / 255;
      }
    }
  });
  return out;
}

/**
 * Faces of a photo, the largest first.
 *
 * @param photo {width, height, data}.
 * @param networks {detector: three functions, network: function of (crops, shape)}; promises of {data, dims} by name.
 * @param about about.json.
 * @returns {Promise<object[]>} faces {box, score, square, coefficients, landmarks_68, …}; points in the photo's pixels.
 */
export async function findFaces(photo, networks, about) {
  const rule = about.crop_rule;
  const frame = about.camera.image_size;
  const found = await detect(photo, networks.detector, about.detector);
  const faces = [];
  for (const { box, score } of found) {
    let square = squareOfDetection(box, rule, frame);
    let seen = null;
    for (let pass = 0; pass < (rule.passes ?? 1); pass++) {
      if (seen) square = squareOfLandmarks(toPhoto(seen.landmarks_68.data, square), rule, frame);
      const size = about.input_size;
      seen = await networks.network(cropsOf(photo, [square], frame, size), [1, 3, size, size]);
    }
    faces.push({
      box,
      score,
      square,
      coefficients: Object.fromEntries(COEFFICIENTS.map((name) => [name, Array.from(seen[name].data)])),
      ...Object.fromEntries(LANDMARKS.map((name) => [name, toPhoto(seen[name].data, square)])),
    });
  }
  return faces;
}

/** Pitch, yaw, roll of a face in degrees. */
export function poseOf(face) {
  const [pitch, yaw, roll] = face.coefficients.angle.map((angle) => (angle * 180) / Math.PI);
  return { pitch, yaw, roll };
}

/** A face's numbers for scripts and files: JSON values with the names that Python gives them. */
export function numbersOf(face) {
  const { ratio, x, y } = face.square;
  return {
    box: face.box,
    score: face.score,
    pose: poseOf(face),
    crop_matrix: [[ratio, 0, x], [0, ratio, y]],
    coefficients: face.coefficients,
    ...Object.fromEntries(LANDMARKS.map((name) => [name, face[name]])),
  };
}
