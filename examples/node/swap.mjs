// Swap the face in a PNG with a whole-frame export: node swap.mjs a2b_frame.onnx picture.png landmarks.json swapped.png
import { readFileSync, writeFileSync } from "node:fs";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { PNG } from "pngjs";

const [model, picture, landmarksFile, output] = process.argv.slice(2);
const session = await InferenceSession.create(model);
const { width, height, data } = PNG.sync.read(readFileSync(picture)); // RGBA

const frame = new Uint8Array(width * height * 3); // the graph takes (H, W, 3), blue first
for (let i = 0, o = 0; i < data.length; i += 4) {
  frame[o++] = data[i + 2];
  frame[o++] = data[i + 1];
  frame[o++] = data[i];
}
const landmarks = Float32Array.from(JSON.parse(readFileSync(landmarksFile, "utf8")).flat()); // 68 x, y pairs

const { swapped } = await session.run({
  frame: new Tensor("uint8", frame, [height, width, 3]),
  landmarks: new Tensor("float32", landmarks, [68, 2]),
});

const result = new PNG({ width, height });
for (let i = 0, o = 0; o < swapped.data.length; i += 4) {
  result.data[i + 2] = swapped.data[o++];
  result.data[i + 1] = swapped.data[o++];
  result.data[i] = swapped.data[o++];
  result.data[i + 3] = 255;
}
writeFileSync(output, PNG.sync.write(result));
