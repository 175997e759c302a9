// The page: models, pictures, what is found in them, and how long it takes.
import { DEMO } from "./data.js";
import { compile, isolated, lacksWebGpu } from "./runtime.js";
import { readModel, refused, sha256, UsageError } from "./tflite.js";
import { deviceRecord, summarize, timeRounds } from "./timing.js";
import * as vision from "./vision.js";

const $ = (id) => document.getElementById(id);
const LIMIT = 2 ** 30; // bytes of a file
const SHOWN = 1024; // pixels of the longer side of a picture that is drawn
const FIGURES = 60; // the newest stay
const models = [];
const state = { model: null, beside: null, compiled: new Map(), record: null, stream: null };

// ---- small helpers ----

function make(tag, attributes = {}, ...children) {
  const node = Object.assign(document.createElement(tag), attributes);
  node.append(...children);
  return node;
}

function say(error) { // one line
  if (!(error instanceof UsageError)) console.error(error);
  $("message").textContent = String(error.message ?? error).split("\n")[0].slice(0, 600);
  $("message").hidden = false;
}

let queue = Promise.resolve(); // one thing after the other

function doing(work) { // a handler that says what goes wrong
  return (...given) => {
    queue = queue.then(async () => {
      $("message").hidden = true;
      $("message").textContent = "";
      document.body.dataset.busy = "yes";
      await new Promise((done) => setTimeout(done)); // what was said is drawn first
      try { await work(...given); } catch (error) { say(error); } finally {
        delete document.body.dataset.busy;
      }
    });
    return queue;
  };
}

const options = (select, pairs) => select.replaceChildren(
  ...pairs.map(([value, text]) => make("option", { value, textContent: text })));

// ---- models ----

async function take(bytes, file, facts = {}) { // a model into the list; what the server knows wins
  if (bytes.length > LIMIT) throw new UsageError(`${file} has more than ${LIMIT / 2 ** 30} GiB`);
  const model = { ...await readModel(bytes, file), runtime: DEMO.version, sha256: await sha256(bytes) };
  model.refused = refused(model);
  model.task = facts.task ?? vision.taskOf(model);
  model.said = model.refused ? null : facts.range ?? vision.rangeOf(model);
  if (facts.labels?.length) model.labels = facts.labels;
  if (!model.refused && !model.task) {
    model.refused = `${file} puts out ${model.outputs.map((t) => `(${t.shape.join(", ")})`).join(", ")}`
      + ": neither scores of classes, nor a mask, nor the two heads of a detector";
  }
  model.content = bytes;
  models.push(model);
  options($("model"), models.map((m, i) => [i, m.file]));
  return models.length - 1;
}

async function choose(index) {
  const model = models[index];
  $("model").value = index;
  state.compiled.forEach(({ close }) => close());
  state.compiled.clear();
  Object.assign(state, { model, record: null });
  $("record").disabled = true;
  $("facts").textContent = "";
  $("times").textContent = "";
  if (model.refused) throw new UsageError(model.refused);
  const { said } = model, [image] = model.inputs;
  const brief = (v) => [v].flat().map((x) => +x.toPrecision(4)).join(" ");
  const ends = `${brief(said.low)}, ${brief(said.high)}`;
  options($("range"), [["", `${ends} (${said.source})`],
                       ...Object.keys(DEMO.ranges).map((name) => [name, name])]);
  model.range = said;
  const others = models.map((m, i) => [i, m]).filter(([, m]) => m !== model && !m.refused
    && m.task === "segmentation");
  options($("beside"), [["", "no other file"], ...others.map(([i, m]) => [i, m.file])]);
  const mask = model.task === "segmentation", boxes = model.task === "detection";
  $("beside-label").hidden = !mask || !others.length;
  $("opacity-label").hidden = !mask;
  $("least-label").hidden = $("method-label").hidden = !boxes;
  const names = vision.namesOf(model).length;
  $("facts").textContent = `${model.name || model.file}: ${model.task}, ${image.shape[2]}x`
    + `${image.shape[1]} pixels, ${image.dtype}, ${(model.bytes / 1e6).toFixed(2)} MB, `
    + `${names || "no"} names of classes; black and white as [${ends}], `
    + `${DEMO.sources[said.source] ?? said.source}`;
}

const how = () => ({ accelerator: $("accelerator").value,
                     threads: Math.max(1, Number($("threads").value) || 1) });

async function ready(model) { // compiled once for the way to run that is chosen
  const key = `${models.indexOf(model)} ${JSON.stringify(how())}`;
  if (!state.compiled.has(key)) {
    state.compiled.forEach(({ close }) => { try { close(); } catch { /* its runtime is gone */ } });
    state.compiled.clear();
    state.compiled.set(key, await compile(model.content, model, how()));
  }
  return state.compiled.get(key);
}

// ---- pictures ----

export function sample(seed = 7, width = 480, height = 360) { // a scene of plain shapes
  let s = seed;
  const next = (n) => {
    s = Math.imul(s, 1103515245) + 12345 & 0x7fffffff;
    return (s >> 12) % n;
  };
  const data = new Uint8Array(width * height * 3);
  const paint = (x, y, rgb) => data.set(rgb, (y * width + x) * 3);
  const horizon = Math.floor(height * 0.6);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const noise = next(12);
    paint(x, y, y < horizon ? [120 + noise, 170 + (y >> 3), 230] : [70 + noise, 130 + noise, 60]);
  }
  for (let i = 0; i < 6; i++) {
    const cx = next(width), cy = horizon - 40 + next(120), r = 18 + next(40);
    const rgb = [next(256), next(256), next(256)], round = next(2);
    for (let y = Math.max(0, cy - r); y < Math.min(height, cy + r); y++) {
      for (let x = Math.max(0, cx - r); x < Math.min(width, cx + r); x++) {
        if (!round || (x - cx) ** 2 + (y - cy) ** 2 < r * r) paint(x, y, rgb);
      }
    }
  }
  return { data, width, height, name: "sample" };
}

function pixelsOf(source, width, height, name) { // RGB on white, as `read_picture` has it
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; i < rgba.length; i += 4) {
    data[j++] = rgba[i]; data[j++] = rgba[i + 1]; data[j++] = rgba[i + 2];
  }
  return { data, width, height, name };
}

function jpegSize(head) { // from the frame's header; null where it comes later
  for (let at = 2; at + 9 < head.byteLength && head.getUint8(at) === 0xff;) {
    const mark = head.getUint8(at + 1);
    const frame = mark >= 0xc0 && mark <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(mark);
    if (frame) return [head.getUint16(at + 7), head.getUint16(at + 5)];
    at += 2 + head.getUint16(at + 2);
  }
  return null;
}

async function headerSize(file) { // (width, height) of a PNG or a JPEG, before it is decoded
  const head = new DataView(await file.slice(0, 2 ** 18).arrayBuffer());
  if (head.byteLength < 24) return null;
  if (head.getUint16(0) === 0xffd8) return jpegSize(head);
  return head.getUint32(0) === 0x89504e47 ? [head.getUint32(16), head.getUint32(20)] : null;
}

async function readPicture(file) { // `UsageError` where it is none, or too large
  const large = (w, h) => new UsageError(`${file.name} has ${w}x${h} pixels; `
    + `${DEMO.most_pixels.toLocaleString("en-US")} are allowed: make it smaller`);
  const size = await headerSize(file);
  if (size && size[0] * size[1] > DEMO.most_pixels) throw large(...size);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image",
      premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch { throw new UsageError(`${file.name} is not a picture that can be read; give a JPEG, PNG or WebP`); }
  const { width, height } = bitmap;
  try {
    if (width * height > DEMO.most_pixels) throw large(width, height);
    return pixelsOf(bitmap, width, height, file.name);
  } finally { bitmap.close(); }
}

// ---- what is found ----

export async function infer(picture, model = state.model) { // {ms, and what the task gives}
  const compiled = await ready(model), hw = model.inputs[0].shape.slice(1, 3);
  const input = vision.modelInput(picture, model, $("crop").checked), start = performance.now();
  const { arrays, shapes } = await compiled.run(input);
  const ms = performance.now() - start, names = vision.namesOf(model);
  const outputs = arrays.map((values, i) => vision.asFloats(values, model.outputs.find(
    (t) => t.shape.join() === shapes[i].join()) ?? model.outputs[i]));
  const size = shapes[0].slice(1).reduce((a, b) => a * b, 1), first = outputs[0].subarray(0, size);
  if (model.task === "classification") return { ms, names, outputs, ...vision.classify(first, names) };
  if (model.task === "segmentation") {
    return { ms, names, outputs, hw, masks: vision.masksOf(first, shapes[0], hw) };
  }
  const heads = vision.headsOf(outputs, shapes);
  return { ms, names, heads, boxes: vision.detect(heads, hw, $("method").value) };
}

function drawn(picture) { // a canvas of at most `SHOWN` pixels a side
  const full = new OffscreenCanvas(picture.width, picture.height);
  const rgba = new Uint8ClampedArray(picture.width * picture.height * 4).fill(255);
  for (let i = 0, j = 0; j < picture.data.length; i += 4, j += 3) {
    rgba.set(picture.data.subarray(j, j + 3), i);
  }
  full.getContext("2d").putImageData(new ImageData(rgba, picture.width, picture.height), 0, 0);
  const share = Math.min(1, SHOWN / Math.max(picture.width, picture.height));
  const canvas = make("canvas", { width: Math.max(1, Math.round(picture.width * share)),
                                  height: Math.max(1, Math.round(picture.height * share)) });
  canvas.getContext("2d").drawImage(full, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function view(title, canvas, ...rest) {
  return make("div", { className: "view" }, make("span", { textContent: title }),
              make("div", { className: "stack" }, canvas, ...rest));
}

const percent = (v) => `${(100 * v).toFixed(1)} %`;

function bars({ rows, shares }) {
  const widest = shares ? 1 : Math.max(...rows.map((r) => Math.abs(r.score)), 1e-9);
  return make("ol", {}, ...rows.map((row) => {
    const bar = make("b");
    bar.style.width = `${100 * Math.max(0, row.score) / widest}%`;
    return make("li", {}, bar, make("span", { textContent: row.name }),
                make("span", { textContent: shares ? percent(row.score) : row.score.toFixed(2) }));
  }));
}

function maskCanvas(mask, [height, width], names, title) {
  const canvas = make("canvas", { width, height, title });
  const image = new ImageData(width, height), hidden = /^(void|background|\?\?\?)$/i.test(names[0] ?? "");
  mask.forEach((c, i) => image.data.set([...vision.palette(c), c === 0 && hidden ? 0 : 255], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.style.opacity = $("opacity").value / 100;
  canvas.addEventListener("pointermove", (event) => { // the class under the finger
    const x = Math.floor(event.offsetX / canvas.clientWidth * width);
    const y = Math.floor(event.offsetY / canvas.clientHeight * height);
    canvas.title = vision.nameOf(names, mask[Math.min(y, height - 1) * width + Math.min(x, width - 1)]);
  });
  return canvas;
}

function legend(mask, names) {
  return make("div", { className: "legend" }, ...vision.largest(mask, names).slice(0, 24).map((row) => {
    const colour = make("i");
    colour.style.background = `rgb(${vision.palette(row.class).join(" ")})`;
    return make("span", {}, colour, `${row.name} ${percent(row.share)}`);
  }));
}

function boxCanvas(picture, { boxes, names }) {
  const canvas = drawn(picture), pen = canvas.getContext("2d");
  const least = $("least").value / 100, size = Math.max(12, canvas.width / 40);
  pen.lineWidth = Math.max(2, canvas.width / 250);
  pen.font = `${size}px system-ui, sans-serif`;
  for (const { box: [y0, x0, y1, x1], class: c, score } of boxes.filter((b) => b.score >= least).reverse()) {
    const colour = DEMO.colors[c % DEMO.colors.length], text = `${vision.nameOf(names, c)} ${percent(score)}`;
    const [x, y] = [x0 * canvas.width, y0 * canvas.height];
    pen.strokeStyle = pen.fillStyle = colour;
    pen.strokeRect(x, y, (x1 - x0) * canvas.width, (y1 - y0) * canvas.height);
    const top = Math.max(0, y - size * 1.3), left = Math.max(0, Math.min(x,
      canvas.width - pen.measureText(text).width - 6));
    pen.fillRect(left, top, pen.measureText(text).width + 6, size * 1.3);
    pen.fillStyle = "#fff";
    pen.fillText(text, left + 3, top + size);
  }
  return canvas;
}

async function masksBeside(picture, found) { // also those of the other file
  const masks = Object.entries(found.masks).map(([title, mask]) => [title, mask, found.hw]);
  if (!$("beside").value) return masks;
  const other = models[$("beside").value];
  other.range ??= other.said;
  const more = await infer(picture, other);
  return [...masks.map(([t, m, hw]) => [`${t} (${state.model.file})`, m, hw]),
          ...Object.entries(more.masks).map(([t, m]) => [`${t} (${other.file})`, m, more.hw])];
}

function agreement([[, a, hwA], [, b, hwB]]) { // the share of pixels with the same class
  const other = vision.nearest(b, hwB, hwA);
  return a.reduce((n, c, i) => n + (c === other[i]), 0) / a.length;
}

async function viewsOf(picture, found) {
  if (found.rows) return [view("", drawn(picture)), bars(found)];
  if (found.boxes) {
    const rows = found.boxes.slice(0, 8).map((b) => ({ ...b, name: vision.nameOf(found.names, b.class) }));
    return [view("", boxCanvas(picture, found)), bars({ rows, shares: true })];
  }
  const masks = await masksBeside(picture, found);
  found.beside = masks;
  return masks.map(([title, mask, hw]) => {
    const one = view(title, drawn(picture), maskCanvas(mask, hw, found.names, title));
    one.append(legend(mask, found.names));
    return one;
  });
}

export async function show(picture, place = null) { // a figure of what is found in a picture
  const found = await infer(picture);
  const views = await viewsOf(picture, found);
  let words = `${picture.name}, ${picture.width}x${picture.height} pixels, ${found.ms.toFixed(1)} ms`;
  if (found.beside?.length > 1) words += `; ${percent(agreement(found.beside))} of the pixels agree`;
  const figure = make("figure", {}, make("figcaption", { textContent: words }),
                      make("div", { className: "views" }, ...views));
  figure.dataset.name = picture.name;
  state.last = found;
  state.pictures = place ? state.pictures : [...(state.pictures ?? []), picture].slice(-1);
  if (place) place.replaceChildren(...figure.childNodes); else $("results").prepend(figure);
  while ($("results").childElementCount > FIGURES) $("results").lastElementChild.remove();
  return found;
}

function needModel() {
  if (!state.model) throw new UsageError("choose a model first: open a .tflite file, or drop one here");
  if (state.model.refused) throw new UsageError(state.model.refused);
}

const pictures = doing(async (files) => { // a bad one does not end the rest
  needModel();
  const failed = [], folder = files.length > 1;
  for (const file of files) {
    if (folder && file.type && !file.type.startsWith("image/")) continue;
    try { await show(await readPicture(file)); } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      failed.push(error);
    }
    await new Promise(requestAnimationFrame);
  }
  if (failed.length === 1) throw failed[0];
  if (failed.length) throw new UsageError(`${failed.length} of ${files.length} pictures could not be `
    + `read, the first: ${failed[0].message}`);
});

const openFiles = doing(async (files) => {
  let last = null;
  for (const file of files) {
    if (file.size > LIMIT) throw new UsageError(`${file.name} has more than ${LIMIT / 2 ** 30} GiB`);
    last = await take(new Uint8Array(await file.arrayBuffer()), file.name);
  }
  if (last !== null) await choose(last);
});

function fromExplorer() { // the tab that opened this one has a model
  const taken = doing(async ({ bytes, name }) => choose(await take(new Uint8Array(bytes), String(name))));
  addEventListener("message", ({ source, origin, data }) => {
    if (source === opener && origin === location.origin && data?.bytes) taken(data);
  });
  opener.postMessage("ready", location.origin);
}

// ---- camera ----

const WHY = { NotAllowedError: "the browser was not allowed to use it; allow it beside the address",
              NotFoundError: "there is none; open a picture", NotReadableError: "another program uses it; "
              + "end that one", TypeError: "browsers give it to https and to this machine alone; open a picture" };

function stopCamera() {
  state.stream?.getTracks().forEach((track) => track.stop());
  state.stream = null;
  $("camera").textContent = "Camera";
}

const camera = doing(async () => {
  if (state.stream) return stopCamera();
  needModel();
  try {
    state.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new UsageError(`no picture from the camera: ${WHY[error.name] ?? error.message}`);
  }
  $("camera").textContent = "Stop camera";
  const video = $("video"), place = make("figure");
  video.hidden = false;
  video.srcObject = state.stream;
  await video.play();
  $("results").prepend(place);
  const next = async () => {
    if (!state.stream) return;
    try {
      await show(pixelsOf(video, video.videoWidth, video.videoHeight, "camera"), place);
    } catch (error) { stopCamera(); return say(error); }
    requestAnimationFrame(next);
  };
  next();
});

// ---- benchmark ----

const benchmark = doing(async () => {
  needModel();
  const model = state.model, settings = { warmup_runs: 5, min_runs: 30, precision: 0.02,
    seconds: Math.max(1, Number($("seconds").value) || 6), max_seconds: 0 };
  settings.max_seconds = 3 * settings.seconds;
  const input = vision.modelInput(sample(), model), chosen = how();
  let whole = true; // whether the accelerator took the whole graph
  const open = async () => {
    const compiled = await compile(model.content, model, chosen);
    whole &&= compiled.whole;
    return { run: () => compiled.run(input), close: () => compiled.close() };
  };
  $("record").disabled = true;
  const rounds = await timeRounds(open, settings, async (done) => {
    $("times").textContent = `round ${done.length} ...`;
    await new Promise((next) => setTimeout(next));
  });
  const s = summarize(rounds);
  $("times").textContent = `${s.latency_ms.toFixed(2)} ms, 95 % interval `
    + `${s.latency_low_ms.toFixed(2)} to ${s.latency_high_ms.toFixed(2)}; p5 ${s.latency_p5_ms.toFixed(2)}, `
    + `p95 ${s.latency_p95_ms.toFixed(2)}, ${s.runs} runs in ${s.processes} rounds; `
    + `${chosen.accelerator}, ${chosen.threads} thread${chosen.threads > 1 ? "s" : ""}`
    + (whole || chosen.accelerator === "wasm" ? "" : "; the CPU did a part of it");
  const device = $("device").value.trim() || navigator.userAgentData?.platform || "unknown";
  const delegated = chosen.accelerator === "wasm" ? {} : { delegated: whole ? "all" : "part" };
  state.record = deviceRecord({ model, ...chosen, delegated, settings, rounds, device });
  $("record").disabled = false;
});

function download() {
  const rounds = JSON.stringify(state.record.numbers.rounds_ms); // on one line
  const record = JSON.stringify(state.record, (key, v) => key === "rounds_ms" ? "" : v, 1);
  const text = `${record.replace('"rounds_ms": ""', `"rounds_ms": ${rounds}`)}\n`;
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href: url, download: `${state.record.name}_record.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// ---- start ----

const again = doing(async () => { // the last picture, another way
  const [last] = state.pictures ?? [];
  if (last && !state.stream && state.model && !state.model.refused) await show(last);
});

function listen() {
  const on = (id, event, act) => $(id).addEventListener(event, act);
  on("model", "change", doing(async () => choose($("model").value)));
  for (const [id, act] of [["file", openFiles], ["pictures", pictures], ["folder", pictures]]) {
    on(id, "change", () => {
      act([...$(id).files]);
      $(id).value = ""; // so that the same file can be chosen again
    });
  }
  on("sample", "click", doing(async () => { needModel(); await show(sample()); }));
  on("camera", "click", () => state.stream ? stopCamera() : camera());
  on("benchmark", "click", benchmark);
  on("record", "click", download);
  on("range", "change", () => {
    state.model.range = DEMO.ranges[$("range").value] ?? state.model.said;
    again();
  });
  for (const id of ["beside", "method", "least", "crop"]) on(id, "change", again);
  on("opacity", "input", () => document.querySelectorAll(".stack canvas + canvas").forEach(
    (canvas) => { canvas.style.opacity = $("opacity").value / 100; }));
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  addEventListener("dragleave", () => document.body.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    const files = [...event.dataTransfer.files], isModel = (f) => f.name.endsWith(".tflite");
    if (files.some(isModel)) openFiles(files.filter(isModel));
    if (files.some((f) => !isModel(f))) pictures(files.filter((f) => !isModel(f)));
  });
}

const start = doing(async () => {
  const lacks = await lacksWebGpu();
  options($("accelerator"), [["wasm", "WebAssembly (CPU)"], ...lacks ? [] : [["webgpu", "WebGPU"]]]);
  $("gpu").textContent = lacks ? `No WebGPU: ${lacks}; all runs on the CPU.` : "";
  $("threads").max = isolated() ? navigator.hardwareConcurrency : 1;
  $("threads").disabled = !isolated();
  $("license").textContent = `LiteRT.js ${DEMO.version}, ${DEMO.license}.`;
  for (const id of ["home", "explorer"]) {
    if (DEMO[id]) { $(id).href = DEMO[id]; $(id).hidden = false; }
  }
  if (location.protocol === "file:") throw new UsageError(DEMO.missing);
  const bad = [];
  for (const facts of DEMO.models) {
    if (facts.error) { bad.push(facts.error); continue; }
    const answer = await fetch(facts.url);
    if (!answer.ok) throw new UsageError(`${facts.file} is not there any more`);
    await take(new Uint8Array(await answer.arrayBuffer()), facts.file, facts);
  }
  if (models.length) await choose(0);
  if (location.hash === "#explorer" && self.opener) fromExplorer();
  if (bad.length) throw new UsageError(bad[0]);
});

listen();
start().then(() => { document.body.dataset.started = "yes"; });
self.demo = { state, models, show, infer, sample, vision, readPicture, summarize };
