// The page: takes files, keeps what it has, swaps as soon as it has a model, a picture and landmarks.
import { landmarksFromClicks } from "./clicks.mjs";
import { createSwapper } from "./swapper.mjs";

const element = (id) => document.getElementById(id);
const [drop, status, picture, swapped] = ["drop", "status", "picture", "swapped"].map(element);
const have = { swapper: null, image: null, landmarks: null, clicks: [] };

function say(text, isError = false) {
  status.textContent = text;
  status.className = isError ? "error" : "";
}

async function take(files) {
  try {
    for (const file of files) {
      if (file.name.endsWith(".onnx")) {
        say(`Loading ${file.name} ...`);
        have.swapper = await createSwapper(new Uint8Array(await file.arrayBuffer()));
      } else if (file.name.endsWith(".json")) {
        have.landmarks = checked(JSON.parse(await file.text()), file.name);
      } else {
        await show(file);
      }
    }
    await swapWhenReady();
  } catch (error) {
    say(error.message, true);
  }
}

function checked(landmarks, name) {
  const good = Array.isArray(landmarks) && landmarks.length === 68 && landmarks.flat().every(Number.isFinite);
  if (!good || landmarks.flat().length !== 136) {
    throw new Error(`${name} must be a list of 68 [x, y] pixels`);
  }
  return landmarks;
}

async function show(file) {
  // Pixels as they are in the file: no colour conversion, no premultiplied alpha.
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  for (const canvas of [picture, swapped]) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  const context = picture.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  have.image = context.getImageData(0, 0, bitmap.width, bitmap.height);
  have.clicks = [];
  have.landmarks = null;
}

async function swapWhenReady() {
  const missing = [];
  if (!have.swapper) missing.push("a model");
  if (!have.image) missing.push("a picture");
  if (have.image && !have.landmarks) missing.push("landmarks, or three clicks in the picture");
  if (missing.length) {
    say(`Waiting for ${missing.join(" and ")}.`);
    return;
  }
  const started = performance.now();
  const result = await have.swapper.swap(have.image, have.landmarks);
  swapped.getContext("2d").putImageData(result, 0, 0);
  say(`Swapped on ${have.swapper.provider} in ${Math.round(performance.now() - started)} ms.`);
}

picture.addEventListener("click", async (event) => {
  if (!have.image) return;
  const box = picture.getBoundingClientRect();
  const scale = picture.width / box.width;
  have.clicks.push([(event.clientX - box.left) * scale, (event.clientY - box.top) * scale]);
  if (have.clicks.length < 3) {
    say(`Click ${["", "the eye on the right", "the middle of the mouth"][have.clicks.length]}.`);
    return;
  }
  have.landmarks = landmarksFromClicks(have.clicks.splice(0));
  await swapWhenReady().catch((error) => say(error.message, true));
});

// A picture first and its landmarks after it, however the files were chosen.
const inOrder = (files) => [...files].sort((a, b) => a.name.endsWith(".json") - b.name.endsWith(".json"));

element("files").addEventListener("change", (event) => take(inOrder(event.target.files)));
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") take(inOrder(event.dataTransfer.files));
  });
}
