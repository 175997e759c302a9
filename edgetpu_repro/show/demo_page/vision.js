// Pictures to tensors and tensors to classes, masks and boxes, as the package does it in Python.
import { DEMO } from "./data.js";
import { UsageError } from "./tflite.js";

const f32 = Math.fround;
const rounded = (v) => { // half to even
  const r = Math.round(v);
  return r - v === 0.5 && r % 2 ? r - 1 : r;
};

// ---- pictures ----

function places(from, to) { // of a bilinear resize: (lower, upper, share) of each output pixel
  const scale = f32(from / to);
  return Array.from({ length: to }, (_, i) => {
    const at = f32(f32(f32(i + 0.5) * scale) - 0.5), low = Math.floor(at);
    return [Math.max(0, low), Math.min(Math.ceil(at), from - 1), f32(at - low)];
  });
}

const mixed = (a, b, share) => f32(a + f32(f32(b - a) * share));

export function centralCrop({ data, height, width }, hw) { // as for ImageNet
  const share = f32(Math.min(...hw) / (Math.min(...hw) + 32));
  const side = rounded(f32(Math.min(height, width) * share));
  const top = Math.floor((height - side) / 2), left = Math.floor((width - side) / 2);
  const out = new Uint8Array(side * side * 3);
  for (let y = 0; y < side; y++) {
    const start = ((top + y) * width + left) * 3;
    out.set(data.subarray(start, start + side * 3), y * side * 3);
  }
  return { data: out, height: side, width: side };
}

export function resize({ data, height, width }, [rows, columns]) { // (rows, columns, 3) of bytes
  const down = places(height, rows), across = places(width, columns);
  const out = new Uint8Array(rows * columns * 3);
  down.forEach(([top, bottom, dy], y) => across.forEach(([left, right, dx], x) => {
    for (let c = 0; c < 3; c++) {
      const at = (row, column) => data[(row * width + column) * 3 + c];
      const value = mixed(mixed(at(top, left), at(top, right), dx),
                          mixed(at(bottom, left), at(bottom, right), dx), dy);
      out[(y * columns + x) * 3 + c] = rounded(Math.min(255, Math.max(0, value)));
    }
  }));
  return out;
}

export function modelInput(picture, model, crop = false) { // what the image's tensor takes
  const [image] = model.inputs, hw = image.shape.slice(1, 3), batch = Math.max(1, image.shape[0]);
  const bytes = resize(crop ? centralCrop(picture, hw) : picture, hw);
  const { low, high } = model.range, one = new Float32Array(bytes.length);
  const side = (ends, i) => Array.isArray(ends) ? ends[i % ends.length] : ends;
  for (let i = 0; i < bytes.length; i++) {
    const x = f32(f32(bytes[i] / 127.5) - 1), a = f32(side(low, i)), b = f32(side(high, i));
    one[i] = a === -1 && b === 1 ? x : f32(a + f32(f32(x + 1) * f32(f32(b - a) / 2)));
  }
  const values = image.dtype === "float32" ? one : one.map(
    (x) => Math.min(255, Math.max(0, rounded(f32(x / (image.scale || 1))) + image.zeroPoint)));
  const tensor = new (image.dtype === "float32" ? Float32Array : Uint8Array)(batch * one.length);
  for (let i = 0; i < batch; i++) tensor.set(values, i * one.length);
  return tensor;
}

export function asFloats(values, { scale, zeroPoint }) { // an output, dequantised
  return scale ? Float32Array.from(values, (v) => f32(v - zeroPoint) * scale) : values;
}

// ---- what a file takes and gives ----

const ends = (range) => [Math.min(...[range.low].flat()), Math.max(...[range.high].flat())];

function overlap(a, b) { // intersection over union of two intervals
  const both = Math.min(a[1], b[1]) - Math.max(a[0], b[0]);
  return Math.max(both, 0) / (Math.max(a[1], b[1]) - Math.min(a[0], b[0]));
}

export function rangeOf(model) { // low, high, source: as the file says, or assumed
  const { mean, std } = model, [image] = model.inputs;
  if (mean?.length && std?.length && std.every((s) => s > 0)) {
    const count = Math.max(mean.length, std.length);
    const of = (byte) => Array.from({ length: count }, (_, i) =>
      (byte - mean[i % mean.length]) / std[i % std.length]);
    return { low: of(0), high: of(255), source: "metadata" };
  }
  if (image.dtype === "uint8" && !image.scale) return { ...DEMO.ranges["0,255"], source: "integers" };
  if (image.dtype === "uint8") {
    const found = [0, 255].map((q) => (q - image.zeroPoint) * image.scale);
    const near = Object.entries(DEMO.ranges).map(([name, r]) => [overlap(found, ends(r)), name])
      .filter(([share, name]) => share >= (DEMO.close[name] ?? DEMO.half))
      .sort((a, b) => b[0] - a[0])[0];
    const range = near ? DEMO.ranges[near[1]] : { low: found[0], high: found[1] };
    return { ...range, source: "quantisation" };
  }
  return { ...DEMO.ranges["-1,1"], source: "assumed" };
}

export function taskOf(model) { // by the outputs; null where it cannot be told
  const shapes = model.outputs.map((t) => t.shape);
  if (shapes.length === 2 && shapes.every((s) => s.length === 3)) {
    const fits = shapes[0][1] === shapes[1][1] && shapes.some((s) => s[2] === 4);
    return fits ? "detection" : null;
  }
  if (shapes.length !== 1) return null;
  const [shape] = shapes, pixels = shape.slice(1, 3).reduce((a, b) => a * b, 1);
  if (shape.length === 2 || shape.length === 4 && pixels === 1) return "classification";
  return shape.length === 3 || shape.length === 4 ? "segmentation" : null;
}

export function classesOf(model) { // how many it tells apart; null where it does not say
  const shapes = model.outputs.map((t) => t.shape);
  if (model.task === "detection") return shapes.find((s) => s[2] !== 4)?.[2] - 1;
  if (model.task === "segmentation" && (shapes[0].length === 3 || shapes[0][3] === 1)) {
    return model.chosen;
  }
  return shapes[0].at(-1);
}

export function namesOf(model) { // of the classes: the file's, or those known for so many
  const count = classesOf(model), known = DEMO.names[model.task]?.[count] ?? [];
  const own = model.labels ?? [], blank = /^(\?\?\?|background|none|void)$/i;
  if (model.task === "detection" && own.length === count + 1 && blank.test(own[0].trim())) {
    return own.slice(1);
  }
  return own.length && (count === null || own.length === count) ? own : known;
}

export const nameOf = (names, c) => names[c] || `class ${c}`;

// ---- classification ----

export function classify(scores, names, top = 5) { // the likeliest classes
  const order = Array.from(scores, (score, c) => ({ class: c, name: nameOf(names, c), score }));
  if (order.some((row) => !Number.isFinite(row.score))) {
    throw new UsageError("the model puts out numbers that are not finite");
  }
  const total = order.reduce((sum, row) => sum + row.score, 0);
  const shares = order.every((row) => row.score >= 0) && Math.abs(total - 1) < 0.2;
  order.sort((a, b) => b.score - a.score || a.class - b.class);
  return { rows: order.slice(0, top), shares };
}

// ---- segmentation ----

function argmaxAt(logits, [height, width, classes], [rows, columns]) { // of a bilinear resize
  const same = height === rows && width === columns, mask = new Uint16Array(rows * columns);
  const down = places(height, rows), across = places(width, columns);
  for (let y = 0; y < rows; y++) {
    const [top, bottom, dy] = same ? [y, y, 0] : down[y];
    for (let x = 0; x < columns; x++) {
      const [left, right, dx] = same ? [x, x, 0] : across[x];
      const tl = (top * width + left) * classes, tr = (top * width + right) * classes;
      const bl = (bottom * width + left) * classes, br = (bottom * width + right) * classes;
      let best = -Infinity, found = 0;
      for (let c = 0; c < classes; c++) {
        const above = mixed(logits[tl + c], logits[tr + c], dx);
        const value = mixed(above, mixed(logits[bl + c], logits[br + c], dx), dy);
        if (value > best) { best = value; found = c; }
      }
      mask[y * columns + x] = found;
    }
  }
  return mask;
}

export function nearest(mask, [height, width], [rows, columns]) { // of classes, by the middles
  const from = (i, n, size) => Math.floor((2 * i + 1) * size / (2 * n));
  const out = new Uint16Array(rows * columns);
  for (let y = 0; y < rows; y++) {
    const row = from(y, rows, height) * width;
    for (let x = 0; x < columns; x++) out[y * columns + x] = mask[row + from(x, columns, width)];
  }
  return out;
}

export function masksOf(output, shape, hw) { // {title: mask of the image's size}
  const [height, width, classes = 1] = shape.slice(1);
  if (classes === 1) {
    return { "argmax of the file": nearest(Uint16Array.from(output), [height, width], hw) };
  }
  const low = hw.map((side) => Math.floor(side / 4)), logits = [height, width, classes];
  return { "default argmax": argmaxAt(output, logits, hw),
           "fused argmax (1/4)": nearest(argmaxAt(output, logits, low), low, hw) };
}

export function palette(c) { // PASCAL VOC's colour of a class
  const colour = [0, 0, 0];
  for (let bit = 7, n = c; bit >= 0; bit--, n >>= 3) {
    for (let k = 0; k < 3; k++) colour[k] |= ((n >> k) & 1) << bit;
  }
  return colour;
}

export function largest(mask, names) { // {class, name, share}, the largest first
  const counts = new Map();
  for (const c of mask) counts.set(c, (counts.get(c) ?? 0) + 1);
  return [...counts].map(([c, n]) => ({ class: c, name: nameOf(names, c), share: n / mask.length }))
    .sort((a, b) => b.share - a.share || a.class - b.class);
}

// ---- detection ----

function anchorShapes(maps, thin) { // of each map, [height, width] in shares of the image
  const scales = Array.from({ length: maps }, (_, i) => 0.2 + 0.75 * i / (maps - 1)).concat(1);
  return scales.slice(0, maps).map((s, i) => {
    const kinds = i ? [[s, 1], [s, 2], [s, 0.5], [s, 3], [s, thin], [Math.sqrt(s * scales[i + 1]), 1]]
      : [[0.1, 1], [s, 2], [s, 0.5]];
    return kinds.map(([scale, ratio]) => [scale / Math.sqrt(ratio), scale * Math.sqrt(ratio)]);
  });
}

export function anchorsFor(hw, count) { // [y, x, height, width] of each; `UsageError` if none fit
  const counts = [];
  for (const { strides, thin } of DEMO.anchors) {
    const out = [];
    anchorShapes(strides.length, thin).forEach((shapes, i) => {
      const [rows, columns] = hw.map((side) => Math.ceil(side / strides[i]));
      for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) for (const [h, w] of shapes) {
        out.push([(y + 0.5) / rows, (x + 0.5) / columns, h, w]);
      }
    });
    if (out.length === count) return out;
    counts.push(out.length);
  }
  throw new UsageError(`${count} anchors fit no detector of this package at ${hw.join("x")} `
    + `pixels (${counts.join(" or ")} do)`);
}

export function decodeBoxes(codes, anchors) { // [ymin, xmin, ymax, xmax], not clipped
  const [vy, vx, vh, vw] = DEMO.variance;
  return anchors.map(([y, x, h, w], i) => {
    const [ty, tx, th, tw] = codes.subarray(4 * i, 4 * i + 4);
    const cy = ty * vy * h + y, cx = tx * vx * w + x;
    const high = Math.exp(th * vh) * h, wide = Math.exp(tw * vw) * w;
    return [cy - high / 2, cx - wide / 2, cy + high / 2, cx + wide / 2];
  });
}

function iou(a, b) {
  const high = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const wide = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (high <= 0 || wide <= 0) return 0;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return high * wide / (area(a) + area(b) - high * wide);
}

export function suppress(found, most) { // of {box, score, class}: the best, without what overlaps
  const kept = [], order = found.map((row, i) => [row, i])
    .filter(([row]) => row.score > DEMO.min_score).sort((a, b) => b[0].score - a[0].score || a[1] - b[1]);
  for (const [row] of order) {
    if (kept.length === most) break;
    if (kept.every((other) => iou(row.box, other.box) <= DEMO.max_overlap)) kept.push(row);
  }
  return kept;
}

export function detect(heads, hw, method = "nms", most = 100) { // heads: {codes, classes, columns}
  const { codes, classes, columns } = heads, boxes = decodeBoxes(codes, anchorsFor(hw, codes.length / 4));
  if (!codes.every(Number.isFinite) || !classes.every(Number.isFinite)) {
    throw new UsageError("the model puts out numbers that are not finite");
  }
  const logits = classes.some((v) => v < 0 || v > 1);
  const score = (v) => logits ? f32(1 / (1 + Math.exp(-v))) : v;
  const clipped = (row) => ({ ...row, box: row.box.map((v) => Math.min(1, Math.max(0, v))) });
  const rows = (c) => boxes.map((box, i) => ({ box, class: c, score: score(classes[i * columns + c + 1]) }));
  if (method === "nms_regular") {
    const all = Array.from({ length: columns - 1 }, (_, c) => suppress(rows(c), 100)).flat();
    return all.sort((a, b) => b.score - a.score).slice(0, most).map(clipped);
  }
  const best = boxes.map((box, i) => {
    let c = 1;
    for (let k = 2; k < columns; k++) {
      if (score(classes[i * columns + k]) > score(classes[i * columns + c])) c = k;
    }
    return { box, class: c - 1, score: score(classes[i * columns + c]) };
  });
  return suppress(best, most).map(clipped);
}

export function headsOf(outputs, shapes) { // which of two outputs is which
  const [a, b] = shapes[0][2] === 4 ? [0, 1] : [1, 0];
  const one = (i) => outputs[i].subarray(0, shapes[i][1] * shapes[i][2]);
  return { codes: one(a), classes: one(b), columns: shapes[b][2] };
}
