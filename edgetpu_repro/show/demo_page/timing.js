// Medians with their interval, as `edgetpu-repro benchmark` computes them, and the record of a run.

import { UsageError } from "./tflite.js";

export const PROCESSES = 6; // rounds, the fewest whose medians give a 95 % interval
const MOST_RUNS = 2000; // of a round, so that a record stays small

function leftOut(n) { // how many medians may be left out at each end
  let outside = 0, k = 0, ways = 1; // n over k
  for (;;) {
    outside += 2 * ways / 2 ** n;
    if (outside > 0.05) return Math.max(0, k - 1);
    k += 1;
    ways = ways * (n - k + 1) / k;
  }
}

const sorted = (values) => [...values].sort((a, b) => a - b);

export function percentile(values, share) { // linear between two values, as NumPy's
  const all = sorted(values), at = share * (all.length - 1), low = Math.floor(at);
  return all[low] + (at - low) * (all[Math.min(low + 1, all.length - 1)] - all[low]);
}

export const median = (values) => percentile(values, 0.5);

export function medianInterval(values) { // 95 % of the median
  const all = sorted(values), k = leftOut(all.length);
  return [all[k], all[all.length - 1 - k]];
}

export function summarize(rounds) { // [[ms, ...] of each round]
  const medians = rounds.map(median), runs = rounds.flat(), [low, high] = medianInterval(medians);
  const brief = (v) => Number(v.toFixed(4));
  return { latency_ms: brief(median(medians)), latency_low_ms: brief(low),
           latency_high_ms: brief(high), latency_p5_ms: brief(percentile(runs, 0.05)),
           latency_p95_ms: brief(percentile(runs, 0.95)), runs: runs.length,
           processes: rounds.length };
}

export const narrow = (rounds, precision) => {
  const [low, high] = medianInterval(rounds.map(median));
  return high - low <= precision * median(rounds.map(median));
};

export async function timeRounds(open, settings, progress = () => {}) { // [[ms, ...]]
  // `open` compiles anew and gives {run, close}: a round stands for a process of `benchmark`.
  const rounds = [], start = performance.now();
  const over = () => (performance.now() - start) / 1e3 >= settings.max_seconds;
  while (rounds.length < PROCESSES || !(over() || narrow(rounds, settings.precision))) {
    const { run, close } = await open(), times = [], begun = performance.now();
    for (let i = 0; i < settings.warmup_runs; i++) await run();
    const share = settings.seconds * 1e3 / PROCESSES;
    const go = () => times.length < settings.min_runs / PROCESSES
      || times.length < MOST_RUNS && performance.now() - begun < share;
    while (go()) {
      const before = performance.now();
      await run();
      times.push(Number((performance.now() - before).toFixed(4)));
    }
    close();
    if (times.some((ms) => !(ms > 0))) {
      throw new UsageError("this browser's clock is too coarse for this model: it says 0 ms for a "
        + "run; try a larger model, or another browser");
    }
    rounds.push(times);
    await progress(rounds);
  }
  return rounds;
}

function plain(text, longest) { // as a record takes it: one line that is no HTML
  const line = text.replace(/[<>\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, " ").replace(/\s+/g, " ").trim();
  return [...line].slice(0, longest).join("") || "unknown";
}

export function deviceRecord({ model, accelerator, threads, delegated, settings, rounds, device }) {
  const name = model.name || model.file.replace(/\.tflite$/, "");
  return { // as `write_record` has it
    step: "device", name: name.replace(/[^\w.-]/g, "_").slice(0, 80) || "model", profile: "devices",
    parameters: {
      kind: "browser", device: plain(device, 60), accelerator, threads, ...delegated, ...settings,
      file: plain(model.file, 120), sha256: model.sha256, bytes: model.bytes,
      image_hw: model.inputs[0].shape.slice(1, 3), dtype: model.inputs[0].dtype,
    },
    seed: null,
    numbers: { ...summarize(rounds), rounds_ms: rounds },
    provenance: {
      versions: { litertjs: model.runtime }, commit: null,
      host: { cpu: plain(navigator.userAgent, 400), cores: navigator.hardwareConcurrency ?? 0,
              memory_gib: navigator.deviceMemory ?? null,
              system: plain(navigator.userAgentData?.platform || navigator.platform || "", 80) },
      time: new Date().toISOString().replace(/\.\d+Z$/, "+00:00"),
    },
  };
}
