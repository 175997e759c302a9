// A model as a float .tflite file with random weights, to be timed: what `model.js` lays out,
// written as a flatbuffer after LiteRT's schema. No DOM here.
"use strict";

const TFLite = (() => {
  const FLOAT32 = 0, INT32 = 2;
  const ACTIVATIONS = { relu: 1, relu6: 3 };
  const OPERATORS = { // name: (number, version, its options' kind), as the schema has them
    ADD: [0, 1, 11], AVERAGE_POOL_2D: [1, 1, 5], CONCATENATION: [2, 1, 10], CONV_2D: [3, 1, 1],
    DEPTHWISE_CONV_2D: [4, 1, 2], MAX_POOL_2D: [17, 1, 5], RESHAPE: [22, 1, 17],
    RESIZE_BILINEAR: [23, 3, 15], SOFTMAX: [25, 1, 9], MEAN: [40, 1, 27],
    STRIDED_SLICE: [45, 1, 32], RESIZE_NEAREST_NEIGHBOR: [97, 1, 74],
  };

  // ---- flatbuffers, written from the root on: what a field points to comes behind it ----

  const byte = (value) => ({ kind: "byte", value });
  const int = (value) => ({ kind: "int", value });
  const float = (value) => ({ kind: "float", value });
  const table = (...fields) => ({ kind: "table", fields }); // by slot; undefined: not there
  const vector = (items) => ({ kind: "vector", items });
  const ints = (values) => ({ kind: "data", data: Int32Array.from(values), count: values.length });
  const data = (array) => ({ kind: "data", data: array, count: array.byteLength, align: 16 });
  const text = (value) => ({ kind: "text", data: new TextEncoder().encode(value) });

  class Writer {
    constructor(size) {
      this.bytes = new Uint8Array(size);
      this.view = new DataView(this.bytes.buffer);
      this.at = 8; // behind the root's offset and the mark
      this.bytes.set(new TextEncoder().encode("TFL3"), 4);
    }

    align(multiple, shift = 0) { // so that `shift` bytes further on is a multiple
      while ((this.at + shift) % multiple) this.at += 1;
    }

    point(from, to) { this.view.setUint32(from, to - from, true); }

    put(node) { // where it is
      if (node.kind === "table") return this.table(node.fields);
      if (node.kind === "vector") return this.vector(node.items);
      this.align(node.align ?? 4, 4);
      const start = this.at;
      this.view.setUint32(start, node.count ?? node.data.length, true);
      const raw = new Uint8Array(node.data.buffer, node.data.byteOffset, node.data.byteLength);
      this.bytes.set(raw, start + 4);
      this.at = start + 4 + raw.length + (node.kind === "text" ? 1 : 0);
      return start;
    }

    vector(items) {
      this.align(4);
      const start = this.at;
      this.view.setUint32(start, items.length, true);
      this.at = start + 4 + 4 * items.length;
      items.forEach((item, i) => this.point(start + 4 + 4 * i, this.put(item)));
      return start;
    }

    table(fields) { // four bytes for each field
      const there = fields.map((field) => field !== undefined), size = 4 + 2 * fields.length;
      this.align(4, size);
      const head = this.at, start = head + size;
      const places = fields.map((_, i) => 4 + 4 * there.slice(0, i).filter(Boolean).length);
      const long = 4 + 4 * there.filter(Boolean).length;
      this.view.setUint16(head, size, true);
      this.view.setUint16(head + 2, long, true);
      there.forEach((is, i) => this.view.setUint16(head + 4 + 2 * i, is ? places[i] : 0, true));
      this.view.setInt32(start, size, true);
      this.at = start + long;
      fields.forEach((field, i) => { if (there[i]) this.field(start + places[i], field); });
      return start;
    }

    field(place, { kind, value, ...node }) {
      if (kind === "byte") this.view.setUint8(place, value);
      else if (kind === "int") this.view.setInt32(place, value, true);
      else if (kind === "float") this.view.setFloat32(place, value, true);
      else this.point(place, this.put({ kind, ...node }));
    }
  }

  // ---- a graph ----

  const product = (shape) => shape.reduce((a, b) => a * b, 1);

  function random(count, limit, seed) { // numbers between -limit and limit, always the same
    const out = new Float32Array(count);
    let s = seed * 2654435761 >>> 0 || 1;
    for (let i = 0; i < count; i++) {
      s ^= s << 13; s >>>= 0;
      s ^= s >>> 17;
      s ^= s << 5; s >>>= 0;
      out[i] = (s / 2 ** 31 - 1) * limit;
    }
    return out;
  }

  class Graph {
    constructor() { Object.assign(this, { tensors: [], buffers: [table()], kinds: [], operators: [] }); }

    tensor(name, shape, type = FLOAT32, array = null) { // its number
      if (array) this.buffers.push(table(data(array)));
      const buffer = array ? this.buffers.length - 1 : 0;
      this.tensors.push(table(ints(shape), byte(type), int(buffer), text(name)));
      return this.tensors.length - 1;
    }

    constant(name, values) { return this.tensor(name, [values.length], INT32, Int32Array.from(values)); }

    operator(kind, inputs, output, ...options) { // its output
      const [, , type] = OPERATORS[kind];
      if (!this.kinds.includes(kind)) this.kinds.push(kind);
      this.operators.push(table(int(this.kinds.indexOf(kind)), ints(inputs), ints([output]),
                                byte(type), table(...options)));
      return output;
    }

    content(name, inputs, outputs) { // of the file
      const codes = this.kinds.map((kind) => {
        const [number, version] = OPERATORS[kind];
        return table(byte(number), undefined, int(version), int(number));
      });
      const graph = table(vector(this.tensors), ints(inputs), ints(outputs),
                          vector(this.operators), text(name));
      const root = table(int(3), vector(codes), vector([graph]), text(name), vector(this.buffers));
      const size = this.buffers.reduce((all, b) => all + (b.fields[0]?.count ?? 0) + 64, 0);
      const writer = new Writer(size + 1024 * (this.tensors.length + this.operators.length + 8));
      writer.point(0, writer.put(root));
      return writer.bytes.slice(0, writer.at);
    }
  }

  // ---- what a layout's operators become ----

  const padding = (op) => byte(op.padding === "valid" ? 1 : 0);
  const strides = (op) => [int(op.stride[1]), int(op.stride[0])];
  const fused = (op) => byte(ACTIVATIONS[op.act] ?? 0);
  const dilated = (op) => [int(op.dilation), int(op.dilation)];

  function filters(g, op, out) { // kernel and bias
    const [h, w] = op.kernel, channels = op.inputs[0].at(-1), deep = op.kind === "depthwise";
    const shape = deep ? [1, h, w, channels] : [out.at(-1), h, w, channels / op.groups];
    const taken = h * w * (deep ? 1 : channels / op.groups); // numbers that go into one
    const limit = Math.sqrt((op.act ? 6 : 3) / taken); // He's, LeCun's: activations keep their size
    const kernel = random(product(shape), limit, g.tensors.length);
    return [g.tensor(`${op.name}/kernel`, shape, FLOAT32, kernel),
            g.tensor(`${op.name}/bias`, [out.at(-1)], FLOAT32, random(out.at(-1), 0.1, g.tensors.length))];
  }

  function sum(g, op, inputs, shape) { // of two maps after the other
    let total = inputs[0];
    inputs.slice(1).forEach((x, i) => {
      const last = i === inputs.length - 2, name = last ? op.name : `${op.name}_${i}`;
      total = g.operator("ADD", [total, x], g.tensor(name, shape), last ? fused(op) : byte(0));
    });
    return total;
  }

  const WRITERS = {
    conv: (g, op, [x], shape) => g.operator(
      "CONV_2D", [x, ...filters(g, op, shape)], g.tensor(op.name, shape),
      padding(op), ...strides(op), fused(op), ...dilated(op)),
    depthwise: (g, op, [x], shape) => g.operator(
      "DEPTHWISE_CONV_2D", [x, ...filters(g, op, shape)], g.tensor(op.name, shape),
      padding(op), ...strides(op), int(1), fused(op), ...dilated(op)),
    average_pool: (g, op, [x], shape) => g.operator(
      "AVERAGE_POOL_2D", [x], g.tensor(op.name, shape), padding(op), ...strides(op),
      int(op.kernel[1]), int(op.kernel[0]), byte(0)),
    max_pool: (g, op, [x], shape) => g.operator(
      "MAX_POOL_2D", [x], g.tensor(op.name, shape), padding(op), ...strides(op),
      int(op.kernel[1]), int(op.kernel[0]), byte(0)),
    global_pool: (g, op, [x], shape) => g.operator(
      "MEAN", [x, g.constant(`${op.name}/axes`, [1, 2])], g.tensor(op.name, shape), byte(1)),
    resize: (g, op, [x], shape) => g.operator(
      "RESIZE_BILINEAR", [x, g.constant(`${op.name}/size`, shape.slice(1, 3))],
      g.tensor(op.name, shape), undefined, undefined, byte(0), byte(op.corner ? 0 : 1)),
    upsample: (g, op, [x], shape) => g.operator(
      "RESIZE_NEAREST_NEIGHBOR", [x, g.constant(`${op.name}/size`, shape.slice(1, 3))],
      g.tensor(op.name, shape), byte(0), byte(0)),
    crop: (g, op, [x], shape) => g.operator(
      "STRIDED_SLICE", [x, ...[[0, 0, 0, 0], shape, [1, 1, 1, 1]].map(
        (values, i) => g.constant(`${op.name}/${i}`, values))],
      g.tensor(op.name, shape), int(0), int(0), int(0), int(0), int(0)),
    add: sum,
    concat: (g, op, inputs, shape) => g.operator(
      "CONCATENATION", inputs, g.tensor(op.name, shape), int(op.axis + 1), byte(0)),
    reshape: (g, op, [x], shape) => g.operator(
      "RESHAPE", [x, g.constant(`${op.name}/shape`, shape)], g.tensor(op.name, shape), ints(shape)),
    flatten: (g, op, inputs, shape) => WRITERS.reshape(g, op, inputs, shape),
    activation: (g, op, [x], shape) => g.operator("SOFTMAX", [x], g.tensor(op.name, shape), float(1)),
  };

  function file(spec) { // bytes; the outputs are raw: probabilities, logits, or heads
    const { ops } = Model.layout(spec), g = new Graph(), numbers = new Map(), used = new Set();
    for (const op of ops.values()) {
      const shape = [1, ...op.shape];
      const inputs = op.sources.map((name) => { used.add(name); return numbers.get(name); });
      numbers.set(op.name, op.kind === "input" ? g.tensor("image", shape)
                                               : WRITERS[op.kind](g, op, inputs, shape));
    }
    const outputs = [...ops.keys()].filter((name) => !used.has(name)).map((name) => numbers.get(name));
    return g.content(spec.name, [numbers.get("image")], outputs);
  }

  return { file };
})();
