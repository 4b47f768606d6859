// Runs the page's arithmetic on the arrays of a JSON file, for test_web_modules.py.
import fs from "node:fs";
import { best, bestApart, corrected, squared } from "./web/boxes.js";
import { squareOfDetection, squareOfLandmarks, toPhoto } from "./web/faces.js";
import { writeGlb } from "./web/glb.js";
import { albedoTexture, vertexNormals } from "./web/mesh.js";
import { borders, partMap } from "./web/part_map.js";
import { blurred, cropSquare, makeSumTable, pictureOf, resized, shrunk, viewsOf } from "./web/pixels.js";
import { filled, uvLayout } from "./web/skin.js";

const [input, output] = process.argv.slice(2);
const asked = JSON.parse(fs.readFileSync(input, "utf8"));
const picture = ({ width, height, data }) => ({ width, height, data: Uint8Array.from(data) });
const floats = (values) => Float32Array.from(values);
const list = (values) => Array.from(values);

const TASKS = {
  picture: ({ image }) => list(pictureOf(image).data),
  resized: ({ image, width, height }) => list(resized(makeSumTable(picture(image)), width, height)),
  views: ({ image, corners, size }) => list(viewsOf(makeSumTable(picture(image)), corners, size)),
  shrunk: ({ image, width, height }) => list(shrunk(picture(image), width, height).data),
  blurred: ({ image, sigma }) => list(blurred(picture(image), sigma).data),
  crop: ({ image, square, size }) => list(cropSquare(picture(image), square, size)),
  best: ({ boxes, scores, overlap }) => best(boxes, scores, overlap),
  bestApart: ({ boxes, scores, overlap }) => bestApart(boxes, scores, overlap),
  corrected: ({ box, correction, extra }) => corrected(box, correction, extra),
  squared: ({ box }) => squared(box),
  ofDetection: ({ box, rule, frame }) => squareOfDetection(box, rule, frame),
  ofLandmarks: ({ points, rule, frame }) => squareOfLandmarks(points, rule, frame),
  toPhoto: ({ values, square }) => toPhoto(values, square),
  normals: ({ vertices, triangles }) => list(vertexNormals(floats(vertices), triangles)),
  texture: ({ alb, arrays, size }) => list(albedoTexture(alb, arrays, size).data),
  partMap: ({ points, depth, triangles, labels, width, height }) =>
    list(partMap(points, depth, triangles, labels, width, height).map),
  borders: ({ map, width, height }) => list(borders(map, width, height)),
  layout: ({ uvCoords, triangles, size }) => {
    const { triangle, shares } = uvLayout(uvCoords, triangles, size);
    return { triangle: list(triangle), shares: list(shares) };
  },
  filled: ({ values, weights, side }) => list(filled(floats(values), floats(weights), side)),
  glb: ({ head, surfaces, shapes, weights, texture }) => {
    const typed = { ...head, vertices: floats(head.vertices), normals: floats(head.normals) };
    typed.offsets = head.offsets.map(floats);
    typed.turns = head.turns.map(floats);
    return list(writeGlb(typed, surfaces, shapes, weights, Uint8Array.from(texture)));
  },
};

fs.writeFileSync(output, JSON.stringify(asked.map(({ task, ...values }) => TASKS[task](values))));
