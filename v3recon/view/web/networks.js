// The one file that knows onnxruntime-web: an ONNX file as a function of arrays.
import * as ort from "onnxruntime-web/wasm";

/** Give the runtime its program; call it once, before the first network. */
export function setRuntime(wasm) {
  ort.env.wasm.numThreads = 1; // more need a server that isolates the page
  ort.env.wasm.wasmBinary = wasm;
  ort.env.logLevel = "error";
}

/** A function of inputs {name: {data, dims}}: a promise of outputs {name: {data, dims}}. */
export async function makeNetwork(bytes) {
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  return async (inputs) => {
    const feeds = Object.fromEntries(
      Object.entries(inputs).map(([name, { data, dims }]) => [name, new ort.Tensor("float32", data, dims)]),
    );
    return session.run(feeds);
  };
}
