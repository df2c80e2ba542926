// A whole-frame export in the browser: pixels and 68 landmarks in, pixels out.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.webgpu.min.mjs";

ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? 0 : 1; // threads need an isolated page

/** Load a model from its bytes. Resolves to { provider, swap(imageData, landmarks) }. */
export async function createSwapper(bytes) {
  const { session, provider } = await createSession(bytes);
  if (!session.inputNames.includes("landmarks")) {
    throw new Error("this file takes no landmarks: export it with 'fsdeploy export MODEL --graph frame'");
  }
  return { provider, swap: (image, landmarks) => swap(session, image, landmarks) };
}

async function createSession(bytes) {
  if (await globalThis.navigator.gpu?.requestAdapter()) {
    try {
      const session = await ort.InferenceSession.create(bytes, { executionProviders: ["webgpu", "wasm"] });
      return { session, provider: "webgpu" };
    } catch (error) {
      console.warn("WebGPU cannot run this model, using WebAssembly:", error);
    }
  }
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  return { session, provider: "wasm" };
}

async function swap(session, image, landmarks) {
  const { width, height, data } = image;
  const frame = new Uint8Array(width * height * 3); // (H, W, 3), blue first
  for (let i = 0, o = 0; i < data.length; i += 4) {
    frame[o++] = data[i + 2];
    frame[o++] = data[i + 1];
    frame[o++] = data[i];
  }
  const { swapped } = await session.run({
    frame: new ort.Tensor("uint8", frame, [height, width, 3]),
    landmarks: new ort.Tensor("float32", Float32Array.from(landmarks.flat()), [68, 2]),
  });
  const result = new ImageData(width, height);
  for (let i = 0, o = 0; o < swapped.data.length; i += 4) {
    result.data[i + 2] = swapped.data[o++];
    result.data[i + 1] = swapped.data[o++];
    result.data[i] = swapped.data[o++];
    result.data[i + 3] = 255;
  }
  return result;
}
