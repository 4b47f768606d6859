// The page of `v3recon view PATH`. Built into data/viewer.min.js with three.js, see docs/view.md.
import { element, makeHeadView, say } from "./head_view.js";

async function show(view, data, name) {
  let count;
  try {
    count = await view.show(data);
  } catch (error) {
    say(`${name} is not a GLB file that can be shown (${error.message}).`);
    return;
  }
  element("download").href = URL.createObjectURL(new Blob([data], { type: "model/gltf-binary" }));
  element("download").download = name;
  say(`${name}: ${count} shapes`);
  document.body.dataset.shown = name;
}

async function open(view, url, name) {
  const answer = await fetch(url);
  if (!answer.ok) return say(`${name} cannot be read (${answer.status}).`);
  await show(view, await answer.arrayBuffer(), name);
}

function listen(view) {
  element("files").addEventListener("change", () => {
    const chosen = element("files").selectedOptions[0];
    open(view, chosen.value, chosen.textContent);
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    const file = event.dataTransfer.files[0];
    if (file) await show(view, await file.arrayBuffer(), file.name);
  });
}

const view = makeHeadView();
if (view) {
  listen(view);
  const first = element("files").options[0];
  if (first) open(view, first.value, first.textContent);
} else {
  say("This browser has no WebGL, which the head is drawn with. Switch it on, or use another.");
}
