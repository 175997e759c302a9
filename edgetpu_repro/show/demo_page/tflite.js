// What a .tflite file says of itself: tensors, operators, and the metadata that `export` writes.

const TYPES = ["float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16",
               "complex64", "int8", "float64"];
const CUSTOM = 32, ARG_MAX = 56;
const POSTPROCESS = "TFLite_Detection_PostProcess";
const COMPILED = { "edgetpu-custom-op": "Coral's Edge TPU", DISPATCH_OP: "an accelerator" };

export class UsageError extends Error {} // one line for the reader

class Table { // of a flatbuffer, its fields by their number
  constructor(view, at) { this.view = view; this.at = at; }

  field(slot) { // where a field is; 0: not there
    const table = this.at - this.view.getInt32(this.at, true);
    if (4 + 2 * slot >= this.view.getUint16(table, true)) return 0;
    const offset = this.view.getUint16(table + 4 + 2 * slot, true);
    return offset && this.at + offset;
  }

  number(slot, kind, size) {
    const at = this.field(slot);
    return at ? this.view[`get${kind}`](at, size > 1) : 0;
  }
  byte(slot) { return this.number(slot, "Int8", 1); }
  int(slot) { return this.number(slot, "Int32", 4); }

  follow(at) { return at + this.view.getUint32(at, true); }
  vector(slot) { // (where it starts, how long it is)
    const at = this.field(slot);
    if (!at) return [0, 0];
    const start = this.follow(at), length = this.view.getUint32(start, true);
    if (length > this.view.byteLength) throw new RangeError("a vector longer than the file");
    return [start + 4, length];
  }
  bytes(slot) {
    const [start, length] = this.vector(slot);
    return new Uint8Array(this.view.buffer, this.view.byteOffset + start, length);
  }
  text(slot) { return new TextDecoder().decode(this.bytes(slot)); }
  numbers(slot, kind, size) {
    const [start, length] = this.vector(slot);
    return Array.from({ length }, (_, i) => this.view[`get${kind}`](start + i * size, true));
  }
  ints(slot) { return this.numbers(slot, "Int32", 4); }
  floats(slot) { return this.numbers(slot, "Float32", 4); }
  table(slot) {
    const at = this.field(slot);
    return at ? new Table(this.view, this.follow(at)) : null;
  }
  tables(slot) {
    const [start, length] = this.vector(slot);
    return Array.from({ length }, (_, i) => new Table(this.view, this.follow(start + 4 * i)));
  }
}

function root(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return new Table(view, view.getUint32(0, true));
}

function tensor(table) { // name, shape, dtype, scale (0: not quantised), zeroPoint
  const quantized = table.table(4);
  const scales = quantized ? quantized.floats(2) : [];
  const zeros = quantized ? quantized.numbers(3, "BigInt64", 8) : [];
  const dtype = TYPES[table.byte(1)] ?? "unknown";
  return { name: table.text(3), shape: table.ints(0), dtype,
           scale: scales.length === 1 && dtype !== "float32" ? scales[0] : 0,
           zeroPoint: Number(zeros[0] ?? 0) };
}

function operators(model, graph) { // of {kind: number or custom name, inputs, outputs}
  const kinds = model.tables(1).map((code) => {
    const number = Math.max(code.byte(0), code.int(3));
    return number === CUSTOM ? code.text(1) : number;
  });
  return graph.tables(3).map((o) => ({ kind: kinds[o.int(0)], inputs: o.ints(1),
                                       outputs: o.ints(2) }));
}

function metadata(model) { // name, mean and std of the image, or nothing of it
  const entry = model.tables(6).find((m) => m.text(0) === "TFLITE_METADATA");
  if (!entry) return {};
  const table = root(model.tables(4)[entry.int(1)].bytes(0).slice());
  const image = table.tables(3)[0]?.tables(2)[0];
  const unit = image?.tables(4).find((u) => u.byte(0) === 1)?.table(1);
  return { name: table.text(0), mean: unit?.floats(0), std: unit?.floats(1) };
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export async function readLabels(bytes) { // from the archive behind the file
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = bytes.length - 22;
  if (end < 0 || view.getUint32(end, true) !== 0x06054b50) return [];
  let at = view.getUint32(end + 16, true);
  const size = view.getUint32(end + 12, true), shift = end - size - at; // what is before it
  at += shift;
  for (let i = 0; i < Math.min(64, view.getUint16(end + 10, true)); i++) {
    const length = view.getUint16(at + 28, true);
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + length));
    if (name.endsWith(".txt")) {
      const packed = view.getUint32(at + 20, true), local = view.getUint32(at + 42, true) + shift;
      const start = local + 30 + view.getUint16(local + 26, true)
        + view.getUint16(local + 28, true);
      if (packed > 2 ** 22) return [];
      const part = bytes.subarray(start, start + packed);
      const plain = view.getUint16(at + 10, true) ? await inflate(part) : part;
      return new TextDecoder().decode(plain).replace(/\r?\n$/, "").split(/\r?\n/);
    }
    at += 46 + length + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return [];
}

export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) { // not a secure context
    throw new UsageError("this page came over plain http from another machine, and browsers then keep "
      + "SHA-256, camera and threads back: use https, or on a phone `adb reverse tcp:PORT tcp:PORT` and "
      + "http://127.0.0.1:PORT");
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (b) => b.toString(16).padStart(2, "0")).join("");
}

export async function readModel(bytes, file) { // what the page needs; `UsageError` if damaged
  const mark = new TextDecoder().decode(bytes.subarray(4, 8));
  if (mark !== "TFL3") throw new UsageError(`${file} is not a TFLite model: it lacks the mark TFL3; `
    + "give a .tflite file");
  try {
    const model = root(bytes), graph = model.tables(2)[0], tensors = graph.tables(0);
    const of = (slot) => graph.ints(slot).map((i) => tensor(tensors[i]));
    const ops = operators(model, graph);
    const chooser = ops.findLast((o) => o.kind === ARG_MAX);
    return { file, bytes: bytes.length, inputs: of(1), outputs: of(2), ...metadata(model),
             custom: ops.map((o) => o.kind).filter((k) => typeof k === "string"),
             chosen: chooser ? tensor(tensors[chooser.inputs[0]]).shape.at(-1) : null,
             labels: await readLabels(bytes).catch(() => []) };
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`${file} is not a TFLite model that can be read: it is damaged; `
      + "download or export it again");
  }
}

export function refused(model) { // why LiteRT.js cannot run a file, with what can; or null
  const weights = model.name ? "WEIGHTS" : model.file; // a released file brings them
  const again = (how) => `edgetpu-repro export --model_name ${model.name || "NAME"} `
    + `--ckpt_path ${weights} --output_dir FOLDER ${how}`;
  const compiled = model.custom.find((kind) => kind in COMPILED);
  if (compiled) {
    return `${model.file} was compiled for ${COMPILED[compiled]} (${compiled}), and runs nowhere `
      + "else: give the .tflite file that it was compiled from";
  }
  if (model.custom.includes(POSTPROCESS)) {
    return `${model.file} ends with ${POSTPROCESS}, which LiteRT.js does not have; the page does `
      + `that itself from raw heads: ${again("--finalize_method none")}`;
  }
  const [image] = model.inputs, one = model.inputs.length === 1 && image.shape.length === 4;
  if (!one || image.shape[3] !== 3) {
    return `${model.file} does not take one RGB image: its inputs are `
      + model.inputs.map((t) => `(${t.shape.join(", ")})`).join(", ");
  }
  if (!["float32", "uint8"].includes(image.dtype)) {
    return `${model.file} takes ${image.dtype}, which LiteRT.js does not; bytes around the same integers: `
      + `${again("--quantize --input_type uint8 --output_type float32")}, and all in float without the three`;
  }
  const odd = model.outputs.find((t) => !["float32", "int32", "uint8"].includes(t.dtype));
  if (odd) {
    return `${model.file} puts out ${odd.dtype}, which LiteRT.js does not give; floats around the same `
      + `integers: ${again("--quantize --input_type uint8 --output_type float32")}`;
  }
  return null;
}
