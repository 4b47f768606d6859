// The page of `v3recon export web` and of `v3recon view` without a path: photos to faces in the browser.
// Built into data/app.min.js with three.js and onnxruntime-web, see docs/web.md.
import { element, makeHeadView, say } from "./head_view.js";
import { numbersOf, poseOf } from "./web/faces.js";
import { glbOf, loadReconstructor } from "./web/reconstructor.js";

const MOST_PIXELS = 16e6; // larger photos are made smaller: phones refuse larger canvases
const DOT = 0.009; // of a face's width: radius of a point
const DRAWN_SIDE = 1400; // pixels that the photo is drawn with, longer side
const NO_WEBGL = "This browser has no WebGL, which heads are drawn with; points and files work without it.";

const view = makeHeadView();
let reconstructor = null;
let photo = null; // {name, image, faces}
let shown = null; // {face, head, jpeg}: whose head is shown
let stream = null; // of the camera

const megabytes = (bytes) => (bytes / 1e6).toFixed(0);
const loading = loadReconstructor((loaded, total) =>
  say(`Loading the networks: ${megabytes(loaded)} of ${megabytes(total)} MB`),
);

function plural(count) {
  return count === 1 ? "1 face" : `${count} faces`;
}

/** A picture of the browser's as ImageData of at most `MOST_PIXELS`. */
function pixelsOf(source, width, height) {
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

async function jpegOf({ width, height, data }) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  return new Uint8Array(await blob.arrayBuffer());
}

const stem = (name) => name.replace(/\.[^.]*$/, "") || "face";

async function openFile(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return say(`${file.name} is not a picture that this browser can read.`);
  }
  await openPicture(pixelsOf(bitmap, bitmap.width, bitmap.height), file.name);
}

async function openPicture(image, name) {
  photo = { name, image, faces: [], bitmap: await createImageBitmap(image) };
  shown = null;
  view?.clear();
  document.body.dataset.shown = "";
  element("results").hidden = true;
  element("faces").replaceChildren();
  drawPhoto();
  const mine = photo;
  const found = reconstructor ?? (await loading);
  say(`Looking at ${name} …`);
  await nextFrame();
  const faces = await found.reconstruct(image);
  if (photo !== mine) return; // another photo came in between
  photo.faces = faces;
  drawPhoto();
  if (!faces.length) return say(`No face was found in ${name}.`);
  makeFaceButtons();
  await choose(0);
}

const nextFrame = () => new Promise((resolve) => setTimeout(resolve, 30)); // lets the browser draw

function makeFaceButtons() {
  element("faces").replaceChildren(
    ...photo.faces.map((_, index) => {
      const button = document.createElement("button");
      button.textContent = `Face ${index + 1}`;
      button.addEventListener("click", () => choose(index));
      return button;
    }),
  );
}

async function choose(index) {
  const mine = photo;
  photo.chosen = index;
  [...element("faces").children].forEach((button, at) => (button.ariaPressed = String(at === index)));
  drawPhoto();
  const face = photo.faces[index];
  say(`${plural(photo.faces.length)} in ${photo.name}. Making the head …`);
  await nextFrame();
  face.parts ??= await reconstructor.makeParts(face);
  if (photo !== mine || photo.chosen !== index) return;
  drawPhoto();
  const name = photo.faces.length > 1 ? `${stem(photo.name)}_${index + 1}` : stem(photo.name);
  const head = await reconstructor.makeHead(face, name, photo.image);
  const jpeg = await jpegOf(head.skin);
  if (photo !== mine || photo.chosen !== index) return;
  shown = { face, head, jpeg };
  if (view) await view.show(glbOf(head, head.weights, jpeg, reconstructor.about).buffer);
  const { pitch, yaw, roll } = poseOf(face);
  const degrees = (value) => `${value.toFixed(0)}°`;
  element("pose").textContent = `pitch ${degrees(pitch)}, yaw ${degrees(yaw)}, roll ${degrees(roll)}`;
  element("results").hidden = false;
  say(view ? `${plural(photo.faces.length)} in ${photo.name}` : NO_WEBGL);
  document.body.dataset.shown = name;
  for (const other of photo.faces) {
    if (other.parts) continue;
    other.parts = await reconstructor.makeParts(other);
    if (photo !== mine || photo.chosen !== index) return;
    drawPhoto();
  }
}

/** What of the photo is drawn, [left, top, width, height]: all of it, or what lies around the chosen face. */
function regionOf({ image, faces, chosen }) {
  const whole = [0, 0, image.width, image.height];
  if (!element("closer").checked || !faces[chosen]) return whole;
  const [left, top, right, bottom] = faces[chosen].box;
  const reach = 0.9 * Math.max(right - left, bottom - top);
  const [x, y] = [(left + right) / 2, (top + bottom) / 2];
  const [fromX, fromY] = [x - reach, y - reach].map((edge) => Math.max(Math.round(edge), 0));
  const [toX, toY] = [Math.min(Math.round(x + reach), image.width), Math.min(Math.round(y + reach), image.height)];
  return toX > fromX && toY > fromY ? [fromX, fromY, toX - fromX, toY - fromY] : whole;
}

function drawPhoto() {
  const canvas = element("photo");
  const { bitmap, faces, chosen, name } = photo;
  photo.region = regionOf(photo);
  const [left, top, width, height] = photo.region;
  const zoom = DRAWN_SIDE / Math.max(width, height); // points stay sharp on small photos
  [canvas.width, canvas.height] = [width, height].map((side) => Math.max(1, Math.round(side * zoom)));
  canvas.hidden = false;
  element("empty").hidden = true;
  const context = canvas.getContext("2d");
  context.setTransform(zoom, 0, 0, zoom, -left * zoom, -top * zoom);
  context.drawImage(bitmap, 0, 0);
  const [withParts, withPoints] = ["show-parts", "show-points"].map((id) => element(id).checked);
  faces.forEach((face, index) => {
    if (withParts && face.parts) drawParts(context, face.parts);
    if (withPoints) drawPoints(context, face, index === chosen, 1 / zoom);
  });
  canvas.ariaLabel = `The photo ${name}: ${plural(faces.length)}`;
}

function drawParts(context, { map, border, width, height, box }) {
  const { parts } = reconstructor.about.head;
  const layer = document.createElement("canvas");
  Object.assign(layer, { width, height });
  const pixels = new ImageData(width, height);
  map.forEach((label, at) => {
    if (!label) return;
    pixels.data.set([...parts[label - 1].color, border[at] ? 255 : parts[label - 1].name === "skin" ? 0 : 60], at * 4);
  });
  layer.getContext("2d").putImageData(pixels, 0, 0);
  context.drawImage(layer, ...box);
}

function drawPoints(context, face, chosen, pixel) {
  const columns = face.landmarks_68.map(([x]) => x);
  const width = Math.max(...columns) - Math.min(...columns);
  const radius = Math.max(DOT * width, 2.2 * pixel);
  context.lineWidth = radius / 3;
  context.strokeStyle = "#000a";
  context.fillStyle = chosen ? "#fff" : "#9cf";
  for (const [x, y] of face.landmarks_68) {
    context.beginPath();
    context.arc(x + 0.5, y + 0.5, radius, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  }
}

function download(data, name, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([data], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function openCamera() {
  try {
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
  } catch (error) {
    const why = {
      NotFoundError: "No camera was found.",
      NotReadableError: "The camera is in use by another program.",
      SecurityError: "The camera needs a page of this machine or of https.",
    };
    return say(why[error.name] ?? "The camera may not be used; allow it in the browser's settings, or choose a photo.");
  }
  element("video").srcObject = stream;
  element("camera-view").hidden = false;
  element("shoot").focus();
  say("The camera is on; its pictures stay in this browser.");
}

function closeCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  element("camera-view").hidden = true;
  element("camera").focus();
}

async function shoot() {
  const video = element("video");
  if (!video.videoWidth) return say("The camera gives no picture yet.");
  const image = pixelsOf(video, video.videoWidth, video.videoHeight);
  closeCamera();
  await openPicture(image, "camera.jpg");
}

/** The face whose box around the points holds a place of the photo. */
function faceAt(x, y) {
  return photo.faces.findIndex(({ landmarks_68 }) => {
    const [columns, rows] = [0, 1].map((axis) => landmarks_68.map((point) => point[axis]));
    return x >= Math.min(...columns) && x <= Math.max(...columns) && y >= Math.min(...rows) && y <= Math.max(...rows);
  });
}

function listen() {
  const failed = (error) => say(`This photo could not be worked on (${error.message}).`);
  element("file").addEventListener("change", () => {
    const [file] = element("file").files;
    element("file").value = ""; // so that the same file can be chosen again
    if (file) openFile(file).catch(failed);
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    const file = event.dataTransfer.files[0];
    if (file) openFile(file).catch(failed);
  });
  element("camera").addEventListener("click", openCamera);
  element("shoot").addEventListener("click", () => shoot().catch(failed));
  element("close-camera").addEventListener("click", closeCamera);
  for (const id of ["show-points", "show-parts", "closer"]) element(id).addEventListener("change", () => photo && drawPhoto());
  element("photo").addEventListener("click", (event) => {
    const canvas = element("photo");
    const box = canvas.getBoundingClientRect();
    const scale = Math.min(box.width / canvas.width, box.height / canvas.height); // object-fit: contain
    const place = (at, start, length, drawn, from, side) => from + (((at - start - length / 2) / scale) / drawn + 0.5) * side;
    const [left, top, width, height] = photo.region;
    const index = faceAt(
      place(event.clientX, box.left, box.width, canvas.width, left, width),
      place(event.clientY, box.top, box.height, canvas.height, top, height),
    );
    if (index >= 0 && index !== photo.chosen) choose(index).catch(failed);
  });
  element("download").addEventListener("click", () => {
    const { head, jpeg } = shown;
    const weights = view ? view.weights() : head.weights;
    download(glbOf(head, weights, jpeg, reconstructor.about), `${head.mesh.name}.glb`, "model/gltf-binary");
  });
  element("numbers").addEventListener("click", () => {
    const text = JSON.stringify({ photo: photo.name, faces: photo.faces.map(numbersOf) });
    download(text, `${stem(photo.name)}.json`, "application/json");
  });
}

/** For scripts; see docs/web.md. */
window.v3recon = {
  ready: loading.then(() => true),
  async reconstruct(imageData) {
    const faces = await (await loading).reconstruct(imageData);
    return faces.map(numbersOf);
  },
  async glb(numbers, imageData = null, name = "face") {
    const found = await loading;
    const [[ratio, , x], [, , y]] = numbers.crop_matrix;
    const head = await found.makeHead({ ...numbers, square: { ratio, x, y } }, name, imageData);
    return glbOf(head, head.weights, await jpegOf(head.skin), found.about);
  },
};

listen();
loading.then(
  (found) => {
    reconstructor = found;
    if (!photo) say(view ? "Ready. Photos stay in this browser." : NO_WEBGL);
    document.body.dataset.ready = "yes";
  },
  (error) => say(`The networks could not be loaded (${error.message}).`),
);
