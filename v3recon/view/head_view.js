// A head of a .glb file in a page: turned by mouse, fingers and arrow keys, its shapes on sliders.
import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";

const STEP = Math.PI / 24; // an arrow key turns by this
export const element = (id) => document.getElementById(id);
export const say = (text) => (element("message").textContent = text);

function makeRenderer() {
  try {
    return new THREE.WebGLRenderer({ canvas: element("picture"), antialias: true });
  } catch {
    return null;
  }
}

function makeSlider(name, index, onMove) {
  const label = document.createElement("label");
  const slider = document.createElement("input");
  Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.01, id: `shape-${name}` });
  slider.dataset.index = index;
  slider.addEventListener("input", () => onMove(index, Number(slider.value)));
  label.append(name, slider);
  return label;
}

/**
 * Take over the elements picture, shapes, neutral, own, front and play of the page.
 *
 * @returns {object|null} {show, clear, weights}: `show(data)` shows a file's bytes, a promise of its number
 *   of shapes that fails if it is none; `weights()` are those of its shapes now. Null without WebGL.
 */
export function makeHeadView() {
  const renderer = makeRenderer();
  if (!renderer) return null;
  const scene = new THREE.Scene();
  scene.background = new THREE.Color(0x4a4e55);
  scene.add(new THREE.HemisphereLight(0xffffff, 0x887777, 2.2));
  const lamp = new THREE.DirectionalLight(0xffffff, 1.4);
  lamp.position.set(0.4, 0.6, 1);
  scene.add(lamp);
  const camera = new THREE.PerspectiveCamera(24, 1, 0.01, 20);
  const controls = new OrbitControls(camera, renderer.domElement);
  let before = 0; // milliseconds, of the picture before

  let head = null; // the scene of the file
  let parts = []; // its meshes with morph targets
  let opened = []; // weights that the file opens with
  let mixer = null;

  const stop = () => (element("play").ariaPressed = "false");

  function draw(now) {
    const box = renderer.domElement.parentElement.getBoundingClientRect();
    renderer.setSize(box.width, box.height, false);
    camera.aspect = box.width / Math.max(box.height, 1);
    camera.updateProjectionMatrix();
    const passed = Math.min((now - before) / 1000, 0.2);
    before = now;
    if (mixer && element("play").ariaPressed === "true") {
      mixer.update(passed);
      showWeights();
    }
    controls.update();
    renderer.render(scene, camera);
  }

  function face() {
    if (!head) return;
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

  function setAll(values) {
    stop();
    values.forEach((value, index) => setWeight(index, value));
    showWeights();
  }

  async function show(data) {
    const file = await new GLTFLoader().parseAsync(data, "");
    clear();
    head = file.scene;
    scene.add(head);
    head.traverse((one) => one.morphTargetInfluences && parts.push(one));
    opened = parts.length ? [...parts[0].morphTargetInfluences] : [];
    const names = parts.length ? Object.keys(parts[0].morphTargetDictionary) : [];
    const move = (index, value) => (stop(), setWeight(index, value));
    element("shapes").replaceChildren(...names.map((name, index) => makeSlider(name, index, move)));
    showWeights();
    mixer = file.animations.length ? new THREE.AnimationMixer(head) : null;
    if (mixer) mixer.clipAction(file.animations[0]).play();
    element("play").hidden = !mixer;
    element("play").ariaPressed = String(Boolean(mixer));
    face();
    return opened.length;
  }

  function clear() {
    if (head) scene.remove(head);
    [head, parts, opened, mixer] = [null, [], [], null];
    element("shapes").replaceChildren();
  }

  element("neutral").addEventListener("click", () => setAll(opened.map(() => 0)));
  element("own").addEventListener("click", () => setAll(opened));
  element("front").addEventListener("click", face);
  element("play").addEventListener("click", () => {
    element("play").ariaPressed = String(element("play").ariaPressed !== "true");
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
  renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
  renderer.setAnimationLoop(draw);
  return { show, clear, weights: () => (parts.length ? [...parts[0].morphTargetInfluences] : []) };
}
