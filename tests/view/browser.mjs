// Uses the page as a person and as a script do, for test_web_browser.py.
import fs from "node:fs";
import path from "node:path";
import validator from "gltf-validator";
import puppeteer from "puppeteer-core";

const [url, chromium, photo, others, folder] = process.argv.slice(2);
const args = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--force-color-profile=srgb"];
const browser = await puppeteer.launch({ executablePath: chromium, headless: true, args, protocolTimeout: 600_000 });
const result = { errors: [], elsewhere: [] };
const patience = { timeout: 400_000 };

async function openPage(prepare = () => {}) {
  const page = await browser.newPage();
  page.on("pageerror", (error) => result.errors.push(error.message));
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !/^(data|blob):/.test(request.url())) result.elsewhere.push(request.url());
  });
  await page.setViewport({ width: 1200, height: 800 });
  await prepare(page);
  await page.goto(url);
  await page.waitForFunction(() => document.body.dataset.ready, patience);
  return page;
}

const message = (page) => page.$eval("#message", (one) => one.textContent);

async function drop(page, name, data) {
  await page.evaluate(
    (name, text) => {
      const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], name));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
    },
    name,
    data.toString("base64"),
  );
}

async function says(page, pattern) {
  await page.waitForFunction((text) => new RegExp(text).test(document.getElementById("message").textContent), patience, pattern);
  return message(page);
}

/** Pixels of the photo's canvas that a check box changes. */
async function changedBy(page, box) {
  const pixels = () =>
    page.evaluate(() => {
      const canvas = document.getElementById("photo");
      return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.filter((_, at) => at % 4 === 1));
    });
  const before = await pixels();
  await page.click(box);
  const after = await pixels();
  await page.click(box);
  return before.filter((value, at) => value !== after[at]).length / before.length;
}

async function reconstruct(page, file) {
  return page.evaluate(async (text) => {
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes]));
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    return window.v3recon.reconstruct(context.getImageData(0, 0, bitmap.width, bitmap.height));
  }, fs.readFileSync(file).toString("base64"));
}

async function downloaded(page, button, name) {
  const file = path.join(folder, name);
  await page.click(button);
  for (let wait = 0; wait < 600 && !fs.existsSync(file); wait++) await new Promise((done) => setTimeout(done, 100));
  return file;
}

const page = await openPage();
const session = await browser.target().createCDPSession();
await session.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: folder });
result.ready = await message(page);

await drop(page, "one.jpg", fs.readFileSync(photo));
await page.waitForFunction(() => document.body.dataset.shown, patience);
result.shown = await message(page);
result.points = await changedBy(page, "#show-points");
result.parts = await changedBy(page, "#show-parts");
result.closer = await changedBy(page, "#closer");
const turn = async () => page.$eval("#picture", (canvas) => canvas.toDataURL().length);
result.head = (await turn()) > 0;

const headAt = async () => (await page.$("#head-part")).screenshot({ encoding: "base64" });
const still = await headAt();
await page.focus("#shape-jawOpen");
await page.keyboard.press("End");
await new Promise((done) => setTimeout(done, 3000));
result.slider = await page.$eval("#shape-jawOpen", (one) => Number(one.value));
result.moved = (await headAt()) !== still;
await downloaded(page, "#download", "one.glb");
await downloaded(page, "#numbers", "one.json");
const report = await validator.validateBytes(new Uint8Array(fs.readFileSync(path.join(folder, "one.glb"))));
result.validator = { errors: report.issues.numErrors, warnings: report.issues.numWarnings };

const names = [];
const walk = (node) => {
  if (["button", "slider", "checkbox", "image", "link"].includes(node.role)) names.push([node.role, node.name ?? ""]);
  for (const child of node.children ?? []) walk(child);
};
walk(await page.accessibility.snapshot());
result.names = names;

await page.setViewport({ width: 360, height: 740 });
result.phone = await page.evaluate(() => document.scrollingElement.scrollWidth);
await page.setViewport({ width: 1200, height: 800 });

result.numbers = {};
for (const file of JSON.parse(others)) result.numbers[file] = await reconstruct(page, file);

await drop(page, "words.txt", Buffer.from("words"));
result.unreadable = await says(page, "words");
const grey = await page.evaluate(() => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [90, 70];
  canvas.getContext("2d").fillRect(0, 0, 90, 70);
  return canvas.toDataURL("image/png").split(",")[1];
});
await drop(page, "grey.png", Buffer.from(grey, "base64"));
result.faceless = await says(page, "No face");
result.cleared = await page.$eval("#results", (one) => one.hidden);

result.camera = {};
for (const name of ["NotAllowedError", "NotFoundError"]) {
  await page.evaluate((name) => {
    document.getElementById("message").textContent = "";
    navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("", name));
  }, name);
  await page.click("#camera");
  result.camera[name] = await says(page, ".");
}
await page.evaluate((text) => {
  navigator.mediaDevices.getUserMedia = async () => {
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes]));
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
    setInterval(() => canvas.getContext("2d").drawImage(bitmap, 0, 0), 50);
    return canvas.captureStream();
  };
}, fs.readFileSync(photo).toString("base64"));
await page.click("#camera");
await page.waitForFunction(() => document.getElementById("video").videoWidth, patience);
await page.click("#shoot");
await page.waitForFunction(() => document.body.dataset.shown === "camera", patience);
result.shot = await message(page);
await page.close();

const plain = await openPage((one) =>
  one.evaluateOnNewDocument(() => {
    const own = HTMLCanvasElement.prototype.getContext;
    HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
      return kind.startsWith("webgl") ? null : own.call(this, kind, ...more);
    };
  }),
);
result.plain = await message(plain);
await drop(plain, "two.jpg", fs.readFileSync(photo));
await plain.waitForFunction(() => document.body.dataset.shown, patience);
result.plainShown = await message(plain);
result.plainGlb = fs.existsSync(await downloaded(plain, "#download", "two.glb"));

await browser.close();
fs.writeFileSync(path.join(folder, "result.json"), JSON.stringify(result));
