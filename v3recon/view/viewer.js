// The page of `v3recon view`. Built into data/viewer.min.js with three.js, see docs/view.md.
import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";

const STEP = Math.PI / 24; // an arrow key turns by this
const element = (id) => document.getElementById(id);
const say = (text) => (element("message").textContent = text);

function makeRenderer() {
  try {
    return new THREE.WebGLRenderer({ canvas: element("picture"), antialias: true });
  } catch {
    say("This browser has no WebGL, which the head is drawn with. Switch it on, or use another.");
    return null;
  }
}

const renderer = makeRenderer();
const scene = new THREE.Scene();
scene.background = new THREE.Color(0x4a4e55);
scene.add(new THREE.HemisphereLight(0xffffff, 0x887777, 2.2));
const lamp = new THREE.DirectionalLight(0xffffff, 1.4);
lamp.position.set(0.4, 0.6, 1);
scene.add(lamp);
const camera = new THREE.PerspectiveCamera(24, 1, 0.01, 20);
const controls = renderer ? new OrbitControls(camera, renderer.domElement) : null;
let before = 0; // milliseconds, of the picture before

let head = null; // the scene of the file
let parts = []; // its meshes with morph targets
let opened = []; // weights that the file opens with
let mixer = null;

function draw(now) {
  const box = renderer.domElement.parentElement.getBoundingClientRect();
  renderer.setSize(box.width, box.height, false);
  camera.aspect = box.width / box.height;
  camera.updateProjectionMatrix();
  const passed = Math.min((now - before) / 1000, 0.2);
  before = now;
  if (mixer && !element("play").hidden && element("play").ariaPressed === "true") {
    mixer.update(passed);
    showWeights();
  }
  controls.update();
  renderer.render(scene, camera);
}

function face() {
  const box = new THREE.Box3().setFromObject(head);
  const size = box.getSize(new THREE.Vector3());
  box.getCenter(controls.target);
  const distance = 2.7 * Math.max(size.y, size.x / Math.min(camera.aspect, 1));
  camera.position.copy(controls.target).add(new THREE.Vector3(0, 0, distance));
}

function setWeight(index, value) {
  for (const part of parts) part.morphTargetInfluences[index] = value;
}

function showWeights() {
  if (!parts.length) return;
  for (const slider of element("shapes").querySelectorAll("input")) {
    slider.value = parts[0].morphTargetInfluences[slider.dataset.index];
  }
}

function makeSliders(names) {
  element("shapes").replaceChildren(
    ...names.map((name, index) => {
      const label = document.createElement("label");
      const slider = document.createElement("input");
      Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.01, id: `shape-${name}` });
      slider.dataset.index = index;
      slider.addEventListener("input", () => {
        element("play").ariaPressed = "false";
        setWeight(index, Number(slider.value));
      });
      label.append(name, slider);
      return label;
    }),
  );
  showWeights();
}

async function show(data, name) {
  let file;
  try {
    file = await new GLTFLoader().parseAsync(data, "");
  } catch (error) {
    say(`${name} is not a GLB file that can be shown (${error.message}).`);
    return;
  }
  if (head) scene.remove(head);
  head = file.scene;
  scene.add(head);
  parts = [];
  head.traverse((one) => one.morphTargetInfluences && parts.push(one));
  opened = parts.length ? [...parts[0].morphTargetInfluences] : [];
  makeSliders(parts.length ? Object.keys(parts[0].morphTargetDictionary) : []);
  mixer = file.animations.length ? new THREE.AnimationMixer(head) : null;
  if (mixer) mixer.clipAction(file.animations[0]).play();
  element("play").hidden = !mixer;
  element("play").ariaPressed = String(Boolean(mixer));
  face();
  element("download").href = URL.createObjectURL(new Blob([data], { type: "model/gltf-binary" }));
  element("download").download = name;
  say(`${name}: ${opened.length} shapes`);
  document.body.dataset.shown = name;
}

async function open(url, name) {
  const answer = await fetch(url);
  if (!answer.ok) return say(`${name} cannot be read (${answer.status}).`);
  await show(await answer.arrayBuffer(), name);
}

function listen() {
  element("neutral").addEventListener("click", () => {
    element("play").ariaPressed = "false";
    opened.forEach((_, index) => setWeight(index, 0));
    showWeights();
  });
  element("own").addEventListener("click", () => {
    element("play").ariaPressed = "false";
    opened.forEach((value, index) => setWeight(index, value));
    showWeights();
  });
  element("front").addEventListener("click", face);
  element("play").addEventListener("click", () => {
    element("play").ariaPressed = String(element("play").ariaPressed !== "true");
  });
  element("files").addEventListener("change", () => {
    const chosen = element("files").selectedOptions[0];
    open(chosen.value, chosen.textContent);
  });
  element("picture").addEventListener("keydown", (event) => {
    const turns = { ArrowLeft: [0, -STEP], ArrowRight: [0, STEP], ArrowUp: [-STEP, 0], ArrowDown: [STEP, 0] };
    if (!(event.key in turns)) return;
    const [up, side] = turns[event.key];
    const place = new THREE.Spherical().setFromVector3(camera.position.clone().sub(controls.target));
    place.phi = Math.min(Math.max(place.phi + up, 0.05), Math.PI - 0.05);
    place.theta += side;
    camera.position.setFromSpherical(place).add(controls.target);
    event.preventDefault();
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    const file = event.dataTransfer.files[0];
    if (file) await show(await file.arrayBuffer(), file.name);
  });
}

if (renderer) {
  listen();
  renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
  renderer.setAnimationLoop(draw);
  const first = element("files").options[0];
  if (first) open(first.value, first.textContent);
}
