// LiteRT.js: loaded when it is needed, once for each way to run.
import { DEMO } from "./data.js";
import { UsageError } from "./tflite.js";

let loaded = null; // {litert, key}

export const isolated = () => DEMO.variants.includes("threaded") && self.crossOriginIsolated;

export async function lacksWebGpu() { // why WebGPU cannot be chosen, in words; or null
  if (!("gpu" in navigator)) return "this browser has none";
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  return adapter ? null : "this browser has it, but no graphics chip for it";
}

async function runtime(accelerator, threads) {
  const jspi = accelerator === "webgpu" && DEMO.variants.includes("jspi") && "Suspending" in WebAssembly;
  const key = jspi ? "jspi" : threads > 1 && isolated() ? "threaded" : "plain";
  if (loaded?.key === key) return loaded.litert;
  let litert;
  try { litert = await import("./litert/index.js"); } catch {
    throw new UsageError(`LiteRT.js is not here: ${DEMO.missing}`);
  }
  if (loaded) litert.unloadLiteRt();
  loaded = null;
  await litert.loadLiteRt(new URL("litert/wasm/", document.baseURI).href,
                          { threads: key === "threaded", jspi });
  loaded = { litert, key };
  return litert;
}

export async function compile(bytes, model, { accelerator = "wasm", threads = 1 } = {}) {
  const litert = await runtime(accelerator, threads);
  let compiled;
  try {
    compiled = await litert.loadAndCompile(bytes, { accelerator, cpuOptions: { numThreads: threads } });
  } catch (error) {
    const why = String(error?.message ?? error).split("\n")[0].slice(0, 160);
    throw new UsageError(`${model.file} cannot be run by LiteRT.js: ${why}`);
  }
  const ran = compiled.options?.accelerator ?? accelerator;
  if (ran !== accelerator) { // LiteRT.js falls back in silence
    compiled.delete();
    throw new UsageError(`${model.file} cannot be run on ${accelerator} as a whole, and this browser can `
      + `run no part of it there (it lacks JSPI): choose ${ran}`);
  }
  const shape = model.inputs[0].shape.map((side) => Math.max(1, side));
  return {
    whole: compiled.isFullyAccelerated,
    async run(values) { // a typed array and a shape for each output
      const input = new litert.Tensor(values, shape);
      const results = await compiled.run([input]);
      const shapes = compiled.getOutputDetails().map((d) => [...d.shape]);
      const arrays = await Promise.all(results.map(async (t) => (await t.data()).slice()));
      results.forEach((t) => t.delete());
      input.delete();
      return { shapes, arrays };
    },
    close() { compiled.delete(); },
  };
}
