// What `edgetpu_repro` computes from a spec, again in JavaScript: checks, layout, costs, latency.
// Tables (registry, fields and their limits, coefficients) come from Python in data.js; the tests
// compare every registered model with Python. No DOM here.
"use strict";

const Model = (() => {
  const data = EXPLORER;
  class UsageError extends Error {}

  const prod = (shape) => shape.reduce((a, b) => a * b, 1);
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const ceilDiv = (a, b) => Math.ceil(a / b);
  const roundUp = (n, multiple) => ceilDiv(n, multiple) * multiple;

  // ---- specs: the checks of models.specs ----

  function repr(value) { // as Python writes it
    if (value === null || value === undefined) return "None";
    if (value === true) return "True";
    if (value === false) return "False";
    if (typeof value === "string") return `'${value}'`;
    if (Array.isArray(value)) {
      const inside = value.map(repr).join(", ");
      return value.length === 1 ? `(${inside},)` : `(${inside})`;
    }
    if (typeof value !== "object") return String(value);
    const fields = Object.entries(value).filter(([key]) => key !== "class");
    const inside = fields.map(([key, v]) => `${key}=${repr(v)}`).join(", ");
    return `${value.class || ""}(${inside})`;
  }

  function brief(value) {
    const text = repr(value);
    return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
  }

  function unknown(what, name, allowed) {
    const some = allowed.slice(0, 8).join(", ");
    const more = allowed.length > 8 ? `there are ${allowed.length}, such as ` : "there are ";
    return new UsageError(`unknown ${what} ${brief(String(name))}; ${more}${some || "none"}`);
  }

  function fits(value, kind) {
    if (kind === "NoneType") return value === null;
    if (kind === "bool") return typeof value === "boolean";
    if (kind === "int") return Number.isInteger(value);
    if (kind === "float") return Number.isFinite(value);
    if (kind === "str") return typeof value === "string";
    if (kind === "tuple") return Array.isArray(value);
    return value !== null && typeof value === "object" && value.class === kind;
  }

  function checkField(name, field, value) {
    const [low, high] = field.limits || [-Infinity, Infinity];
    const inside = typeof value !== "number" || (low <= value && value <= high
                                                && !(value % field.multiple));
    const named = field.name !== "name" || typeof value !== "string" || isName(value);
    const whole = field.name !== "blocks" || (value.length >= 1 && value.length <= 200
                                              && value.every((block) => fits(block, "Block")));
    if (field.kinds.some((kind) => fits(value, kind)) && inside && named && whole) return;
    throw new UsageError(`${name}.${field.name} must be ${field.takes}, not ${brief(value)}`);
  }

  const isName = (text) => /^[\p{L}\p{N}_.+-]{1,100}$/u.test(text) && /^[A-Za-z0-9]/.test(text);

  function imageSize(size) {
    const sides = Array.isArray(size) ? size : [size, size];
    const good = sides.every((side) => Number.isInteger(side) && side >= 32 && side % 32 === 0);
    if (sides.length === 2 && good) return sides;
    throw new UsageError(`image size ${brief(size)} is not allowed; `
                         + "sides must be positive multiples of 32, such as 224");
  }

  function checkBlock(block) {
    if (!data.kinds.includes(block.kind)) throw unknown("kind", block.kind, data.kinds);
    if (block.kind.endsWith("grouped") && !block.group_size) {
      throw new UsageError(`${repr(block)} needs a group_size`);
    }
    if (block.kind === "fused" && block.expand === 1 && block.stride > 1) {
      throw new UsageError(`${repr(block)}: without expansion there is no spatial filter `
                           + "that could have a stride");
    }
  }

  function groupsOf(block, channels) {
    if (!block.kind.endsWith("grouped")) return 1;
    const wide = channels * block.expand;
    if (wide % block.group_size) {
      throw new UsageError(`${repr(block)}: ${wide} widened channels are not divisible `
                           + `by group size ${block.group_size}`);
    }
    const groups = wide / block.group_size;
    const filtered = block.kind === "fused_grouped" ? channels : wide;
    if (filtered % groups === 0) return groups;
    throw new UsageError(`${repr(block)}: ${filtered} input channels are not divisible `
                         + `by ${groups} groups`);
  }

  function at(row, check) { // an error of a row says which row of the table it is
    try { return check(); } catch (error) {
      if (error instanceof UsageError && error.row === undefined) error.row = row;
      throw error;
    }
  }

  function checkClassifier(spec) {
    const blocks = spec.blocks;
    let channels = spec.stem;
    blocks.forEach((block, i) => at(i, () => {
      groupsOf(block, channels);
      if (!block.out) throw new UsageError(`${spec.name}: block ${i} lacks its output channels`);
      channels = block.out;
    }));
  }

  function checkDeepLab(spec) {
    const possible = spec.rates.every((r) => Number.isInteger(r) && r >= 1 && r <= 256);
    const different = new Set(spec.rates).size === spec.rates.length;
    if (possible && different && spec.rates.length <= 16) return;
    throw new UsageError(`${spec.name}: rates must be up to 16 different whole numbers `
                         + `from 1 to 256, not ${brief(spec.rates)}`);
  }

  function parseLayer(text) {
    const found = /^([a-z])\((\d{1,3}(?:,\d{1,3})*)\)$/.exec(String(text));
    const numbers = found ? found[2].split(",").map(Number) : [];
    const wanted = { i: 3, g: 4, s: 2 };
    if (found && wanted[found[1]] === numbers.length && !numbers.includes(0)) {
      return [found[1], numbers];
    }
    throw new UsageError(`${brief(text)} is no layer; layers are i(kernel,expansion,stride), `
                         + "g(kernel,expansion,stride,groups) and s(kernel,stride)");
  }

  function checkNode(node) {
    node.layers.forEach(parseLayer);
    const count = node.sources.length;
    if (count === 1 || count === 2) return;
    throw new UsageError(`node ${node.name} has ${count} sources; 1 or 2 are allowed`);
  }

  function checkSpaghetti(spec) {
    const known = ["s0"];
    spec.nodes.forEach((node, i) => at(i, () => {
      if (!fits(node, "Node")) throw new UsageError(`${brief(node)} is no node`);
      for (const source of node.sources) {
        if (!known.includes(source)) throw unknown(`source of node ${node.name}`, source, known);
      }
      known.push(node.name);
    }));
    for (const name of spec.outputs) {
      if (!known.includes(name)) throw unknown("output node", name, known);
    }
    if (!spec.outputs.length) throw new UsageError(`${spec.name} has no output node`);
  }

  const CHECKS = {
    Block: checkBlock, Classifier: checkClassifier, DeepLab: checkDeepLab, Node: checkNode,
    SpaghettiNet: checkSpaghetti,
  };

  function fromPlain(value) { // checks every record from the inside out, and puts in defaults
    if (Array.isArray(value)) return value.map((v, i) => at(i, () => fromPlain(v)));
    if (value === null || typeof value !== "object") return value;
    const { class: name, ...given } = value;
    const schema = Object.hasOwn(data.classes, String(name)) ? data.classes[name] : null;
    if (!schema) throw unknown("class", name === undefined ? "None" : name,
                               Object.keys(data.classes));
    const names = schema.map((field) => field.name);
    for (const key of Object.keys(given)) {
      if (!names.includes(key)) throw unknown(`field of ${name}`, key, names);
    }
    const lacking = schema.filter((f) => !("default" in f) && !(f.name in given));
    if (lacking.length) {
      throw new UsageError(`${name} lacks ${lacking.map((f) => f.name).join(", ")}`);
    }
    const record = { class: name };
    for (const field of schema) {
      const given_ = field.name in given;
      record[field.name] = given_ ? fromPlain(given[field.name]) : field.default;
    }
    for (const field of schema) checkField(name, field, record[field.name]);
    if (CHECKS[name]) CHECKS[name](record);
    return record;
  }

  function check(plain) {
    if (plain === null || typeof plain !== "object" || Array.isArray(plain)) {
      throw new UsageError("the text is no spec: it holds no JSON object");
    }
    if (["Block", "Node"].includes(plain.class)) {
      throw new UsageError("the text holds a part of a model, not a model");
    }
    const spec = fromPlain(plain);
    backboneOf(spec);
    return spec;
  }

  function parse(text) {
    if (text.length > data.max_json) {
      throw new UsageError(`the text is no spec: it has more than ${data.max_json} bytes`);
    }
    let plain;
    try { plain = JSON.parse(text); } catch (error) {
      throw new UsageError(`the text is not JSON: ${error.message.split(/\s+/).join(" ")}`);
    }
    try { return check(plain); } catch (error) {
      if (error instanceof RangeError) {
        throw new UsageError("the text is no spec: it is nested too deeply");
      }
      if (!(error instanceof UsageError) || error.message.startsWith("the text")) throw error;
      throw new UsageError(`the text is no spec: ${error.message}`);
    }
  }

  function getSpec(name) {
    const known = Object.hasOwn(data.aliases, name) ? data.aliases[name] : name;
    if (Object.hasOwn(data.specs, known)) return data.specs[known];
    throw unknown("model", name, Object.keys(data.specs));
  }

  const taskOf = (spec) => data.tasks[spec.class];

  function backboneOf(spec) {
    let body = spec.backbone === undefined ? null : spec.backbone;
    if (body === null) return spec;
    if (typeof body === "string") body = getSpec(body);
    if (taskOf(body) === "classification") return body;
    throw new UsageError(`${spec.name}: backbone ${body.name} is a ${taskOf(body)} model; `
                         + "a backbone is a classifier");
  }

  // ---- layouts: the operators of models.layout and what the families make of them ----

  const pair = (value) => (Array.isArray(value) ? value : [value, value]);

  function windows(hw, kernel, stride, padding) {
    if (padding === "same") return hw.map((side, i) => ceilDiv(side, stride[i]));
    return hw.map((side, i) => Math.floor((side - kernel[i]) / stride[i]) + 1);
  }

  const PLAIN = { norm: false, bias: true, padding: "valid", act: null };
  const LINEAR = { act: null };
  const channelsOf = (x) => x.shape[x.shape.length - 1];

  class Layout {
    constructor(name, usual = "relu") { // `part`: which row of a table the operators to come belong to
      Object.assign(this, { name, usual, ops: new Map(), part: "stem" });
    }

    append(kind, name, inputs, shape, fields = {}) {
      if (this.ops.has(name)) {
        throw new UsageError(`${this.name}: there are two operators '${name}'`);
      }
      if (this.ops.size > 20000) throw new UsageError(`${this.name} has too many operators`);
      const op = {
        name, kind, part: this.part, sources: inputs.map((x) => x.name),
        inputs: inputs.map((x) => x.shape), shape, kernel: [1, 1], stride: [1, 1], padding: "same",
        dilation: 1, groups: 1, bias: false, norm: false, act: null, ...fields,
      };
      this.ops.set(name, op);
      return op;
    }

    input(hw) { return this.append("input", "image", [], [...hw, 3]); }

    conv(x, filters, name, { kernel = 1, stride = 1, groups = 1, padding = "same", norm = true,
                             bias = false, act = this.usual } = {}) {
      [kernel, stride] = [pair(kernel), pair(stride)];
      if (channelsOf(x) % groups || filters % groups) {
        throw new UsageError(`${name}: ${channelsOf(x)} and ${filters} channels are not `
                             + `divisible by ${groups} groups`);
      }
      const shape = [...windows(x.shape.slice(0, 2), kernel, stride, padding), filters];
      return this.append("conv", name, [x], shape, { kernel, stride, padding, groups, norm, bias, act });
    }

    depthwise(x, name, { kernel = 3, stride = 1, dilation = 1, norm = true, bias = false,
                         act = this.usual } = {}) {
      [kernel, stride] = [pair(kernel), pair(stride)];
      const groups = channelsOf(x);
      const shape = [...windows(x.shape.slice(0, 2), kernel, stride, "same"), groups];
      return this.append("depthwise", name, [x], shape,
                         { kernel, stride, dilation, groups, norm, bias, act });
    }

    pool(kind, x, window, stride, padding, name) {
      const [size, step] = [pair(window), pair(stride || window)];
      const shape = [...windows(x.shape.slice(0, 2), size, step, padding), channelsOf(x)];
      return this.append(kind, name, [x], shape, { kernel: size, stride: step, padding });
    }

    globalPool(x, name) { return this.append("global_pool", name, [x], [1, 1, channelsOf(x)]); }

    resize(x, hw, name, corner = false) { // the operator itself where it has this size already
      if (x.shape[0] === hw[0] && x.shape[1] === hw[1]) return x;
      return this.append("resize", name, [x], [...hw, channelsOf(x)], { corner });
    }

    upsample(x, factor, name) {
      const [h, w, channels] = x.shape;
      return this.append("upsample", name, [x], [h * factor, w * factor, channels]);
    }

    crop(x, hw, name) {
      if (x.shape[0] === hw[0] && x.shape[1] === hw[1]) return x;
      return this.append("crop", name, [x], [...hw, channelsOf(x)]);
    }

    add(xs, name, act = null) {
      const shapes = new Set(xs.map((x) => repr(x.shape)));
      if (shapes.size > 1) {
        const sorted = [...shapes].join(", ");
        throw new UsageError(`${name} would add maps of the shapes [${sorted}]`);
      }
      return this.append("add", name, xs, xs[0].shape, { act });
    }

    concat(xs, name, axis = -1) {
      const shape = [...xs[0].shape];
      const i = axis < 0 ? shape.length + axis : axis;
      shape[i] = sum(xs.map((x) => x.shape[i]));
      return this.append("concat", name, xs, shape, { axis: i });
    }

    get(name) { return this.ops.get(name); }
  }

  // classifiers

  function ibn(g, x, block, name) {
    const channels = channelsOf(x), wide = channels * block.expand;
    const groups = groupsOf(block, channels);
    const spatial = { kernel: block.kernel, stride: block.stride };
    let y = x;
    if (block.kind === "grouped" || (block.kind === "dw" && block.expand > 1)) {
      y = g.conv(y, wide, `${name}_expand`);
    }
    if (block.kind === "dw") y = g.depthwise(y, `${name}_depthwise`, spatial);
    else if (block.kind !== "fused") y = g.conv(y, wide, `${name}_grouped`, { ...spatial, groups });
    else if (block.expand > 1) y = g.conv(y, wide, `${name}_fused`, spatial);
    y = g.conv(y, block.out, `${name}_project`, LINEAR);
    const skip = block.id_skip && block.stride === 1 && channels === block.out;
    return skip ? g.add([x, y], `${name}_add`) : y;
  }

  const blockName = (i) => `block${String(i).padStart(2, "0")}`;

  function backbone(g, spec, x) {
    x = g.conv(x, spec.stem, "stem", { kernel: spec.stem_kernel, stride: 2 });
    const features = [x];
    spec.blocks.forEach((block, i) => {
      g.part = blockName(i);
      x = at(i, () => ibn(g, x, block, blockName(i)));
      if (block.stride > 1) features.push(x);
      else if (features.length > 1) features[features.length - 1] = x;
    });
    return features;
  }

  function classifier(spec, hw) {
    const g = new Layout(spec.name);
    const features = backbone(g, spec, g.input(hw));
    g.part = "top";
    let x = g.conv(features[features.length - 1], spec.top, "top");
    x = g.globalPool(x, "pool");
    g.part = "classifier";
    x = g.conv(x, spec.num_classes, "classifier", PLAIN);
    x = g.append("flatten", "flatten", [x], [prod(x.shape)]);
    g.append("activation", "probabilities", [x], x.shape);
    return g;
  }

  // DeepLabV3+

  function aspp(g, x, spec) {
    const hw = x.shape.slice(0, 2);
    const branches = [g.conv(x, spec.aspp, "aspp_1x1")];
    for (const rate of spec.rates) {
      const y = g.depthwise(x, `aspp_rate${rate}_depthwise`,
                            { norm: false, dilation: rate, ...LINEAR });
      branches.push(g.conv(y, spec.aspp, `aspp_rate${rate}`));
    }
    const window = hw.map((side) => Math.min(side, spec.pool || side));
    let y = g.pool("average_pool", x, window, null, "valid", "aspp_window");
    y = g.conv(y, spec.aspp, "aspp_pool");
    branches.push(g.resize(y, hw, "aspp_pool_resize", spec.corner));
    y = g.concat(branches, "aspp_concat");
    return g.conv(y, spec.aspp, "aspp_project");
  }

  function decoder(g, x, low, spec) {
    low = g.conv(low, spec.low_level, "decoder_low");
    x = g.resize(x, low.shape.slice(0, 2), "decoder_resize", spec.corner);
    x = g.concat([x, low], "decoder_concat");
    for (const i of [0, 1]) {
      x = g.depthwise(x, `decoder${i}_depthwise`);
      x = g.conv(x, spec.decoder, `decoder${i}`);
    }
    return x;
  }

  const MOBILENET_V2 = [ // expansion, channels, repeats, stride of the first, dilation
    [1, 16, 1, 1, 1], [6, 24, 2, 2, 1], [6, 32, 3, 2, 1], [6, 64, 4, 2, 1], [6, 96, 3, 1, 1],
    [6, 160, 1, 1, 1], [6, 160, 2, 1, 2], [6, 320, 1, 1, 2],
  ];

  function mobilenetV2(g, x) {
    const head = g.usual;
    g.usual = "relu6";
    x = g.conv(x, 32, "Conv1", { kernel: 3, stride: 2 });
    let i = 0;
    for (const [expand, out, repeats, first, dilation] of MOBILENET_V2) {
      for (let repeat = 0; repeat < repeats; repeat++, i++) {
        const stride = repeat === 0 ? first : 1, name = i ? `block_${i}` : "expanded_conv";
        g.part = name;
        let y = i ? g.conv(x, channelsOf(x) * expand, `${name}_expand`) : x;
        y = g.depthwise(y, `${name}_depthwise`, { stride, dilation });
        y = g.conv(y, out, `${name}_project`, LINEAR);
        x = stride > 1 || channelsOf(x) !== out ? y : g.add([x, y], `${name}_add`);
      }
    }
    g.usual = head;
    return [g.get("block_3_expand"), x];
  }

  function body(g, spec, x) {
    const found = backboneOf(spec);
    if (found.class === "Classifier") return backbone(g, found, x);
    if (found.application === "MobileNetV2" && !found.options.length) return mobilenetV2(g, x);
    throw new UsageError(`${spec.name}: backbone ${found.name} has no layout; `
                         + "of the references only mobilenet_v2 has one");
  }

  function deeplab(spec, hw) {
    const g = new Layout(spec.name), maps = body(g, spec, g.input(hw));
    if (spec.level >= maps.length) {
      throw new UsageError(`${spec.name}: backbone has ${maps.length} feature maps, `
                           + `there is no level ${spec.level}`);
    }
    if (spec.low_map !== null && !g.ops.has(spec.low_map)) {
      throw unknown(`operator of ${spec.name}`, spec.low_map, [...g.ops.keys()]);
    }
    g.part = "ASPP";
    let x = aspp(g, maps[maps.length - 1], spec);
    const low = spec.low_map ? g.get(spec.low_map) : maps[spec.level];
    g.part = "decoder";
    x = decoder(g, x, low, spec);
    g.part = "classifier";
    g.conv(x, spec.num_classes, "classifier", PLAIN);
    return g;
  }

  // Autoseg

  function halve(g, x, strides, name) {
    const window = strides.map((s) => (s > 1 ? s + 1 : 1));
    return g.pool("average_pool", x, window, strides, "same", name);
  }

  function pyramid(g, maps, spec) {
    const levels = [...maps];
    for (let i = maps.length; i < spec.levels; i++) {
      let x = levels[levels.length - 1];
      if (channelsOf(x) !== spec.filters) x = g.conv(x, spec.filters, `level${i}_widen`, PLAIN);
      levels.push(halve(g, x, [2, 2], `level${i}_pool`));
    }
    return levels.map((x, i) => {
      if (channelsOf(x) === spec.filters) return x;
      return g.conv(x, spec.filters, `level${i}`, { bias: true, ...LINEAR });
    });
  }

  function resample(g, x, hw, name) {
    const [h, w] = x.shape;
    if (h === hw[0] && w === hw[1]) return x;
    if (h < hw[0] || w < hw[1]) return g.resize(x, hw, name);
    return halve(g, x, [ceilDiv(h, hw[0]), ceilDiv(w, hw[1])], name);
  }

  function merge(g, inputs, hw, name) {
    const maps = inputs.map((x, i) => resample(g, x, hw, `${name}_resample${i}`));
    let x = g.add(maps, `${name}_sum`);
    x = g.depthwise(x, `${name}_depthwise`, { norm: false, ...LINEAR });
    return g.conv(x, channelsOf(x), name, { act: "relu6" });
  }

  function bifpnCell(g, levels, name) {
    const hw = levels.map((x) => x.shape.slice(0, 2)), last = levels.length - 1;
    const down = [...levels];
    for (let i = last - 1; i >= 0; i--) {
      down[i] = merge(g, [levels[i], down[i + 1]], hw[i], `${name}_down${i}`);
    }
    const up = [...down];
    for (let i = 1; i <= last; i++) {
      const inputs = i < last ? [levels[i], down[i], up[i - 1]] : [levels[i], up[i - 1]];
      up[i] = merge(g, inputs, hw[i], `${name}_up${i}`);
    }
    return up;
  }

  function autoseg(spec, hw) {
    const g = new Layout(spec.name), maps = body(g, spec, g.input(hw));
    if (maps.length !== 5) {
      throw new UsageError(`${spec.name}: the backbone has feature maps of ${maps.length} `
                           + "strides, 5 are needed");
    }
    g.part = "levels";
    let levels = pyramid(g, maps.slice(2), spec);
    for (let i = 0; i < spec.cells; i++) {
      g.part = `BiFPN cell ${i}`;
      levels = bifpnCell(g, levels, `cell${i}`);
    }
    g.part = "fuse";
    let x = merge(g, levels, levels[0].shape.slice(0, 2), "fuse");
    g.part = "classifier";
    x = g.depthwise(x, "classifier_depthwise", { norm: false, ...LINEAR });
    g.conv(x, spec.num_classes, "classifier", PLAIN);
    return g;
  }

  // SpaghettiNet, and the heads of all detectors

  function spaghettiLayer(g, x, text, width, name) {
    const [kind, numbers] = parseLayer(text);
    if (kind === "s") {
      const [kernel, stride] = numbers;
      const y = g.depthwise(x, `${name}_depthwise`,
                            { kernel, stride, norm: false, bias: true, ...LINEAR });
      return g.conv(y, width, `${name}_pointwise`);
    }
    const [kernel, expansion, stride, groups] = numbers;
    let y;
    if (kind === "i") {
      y = g.conv(x, width * expansion, `${name}_expansion`);
      y = g.depthwise(y, `${name}_depthwise`, { kernel, stride });
    } else {
      y = g.conv(x, channelsOf(x) * expansion, `${name}_grouped`, { kernel, stride, groups });
    }
    return g.conv(y, width, `${name}_projection`, LINEAR);
  }

  function edge(g, x, difference, width, name) {
    if (difference === 0) return g.conv(x, width, `${name}_1x1_no_resampling`, LINEAR);
    if (difference > 0) {
      const y = g.conv(x, width, `${name}_1x1_before_upsample`, LINEAR);
      return g.upsample(y, 2 ** difference, `${name}_upsample`);
    }
    const stride = 2 ** -difference;
    const y = g.pool("max_pool", x, stride + 1, stride, "same", `${name}_pool`);
    return g.conv(y, width, `${name}_1x1_after_downsampling`, LINEAR);
  }

  function join(g, node, sources) {
    if (sources.length === 1) return sources[0].x;
    const names = sources.map((source) => `edge_${source.name}_${node.name}`);
    const ends = sources.map((source, i) => {
      return edge(g, source.x, source.octave - node.octave, node.width, names[i]);
    });
    const octaves = sources.map((source) => source.octave);
    const hw = ends[octaves.indexOf(Math.min(...octaves))].shape.slice(0, 2);
    const cropped = ends.map((x, i) => g.crop(x, hw, `${names[i]}_crop`));
    return g.add(cropped, `${node.name}_sum`, "relu6");
  }

  function ssdHeads(g, maps, classes) {
    for (const [branch, columns] of [["box", 4], ["class", classes + 1]]) {
      g.part = `${branch} heads`;
      const parts = maps.map((x, i) => {
        const anchors = i ? 6 : 3;
        let y = g.depthwise(x, `${branch}${i}_depthwise`, { act: "relu6" });
        y = g.conv(y, anchors * columns, `${branch}${i}`, { norm: false, bias: true, ...LINEAR });
        const rows = y.shape[0] * y.shape[1] * anchors;
        return g.append("reshape", `${branch}${i}_rows`, [y], [rows, columns]);
      });
      g.concat(parts, `${branch}_rows`, 0);
    }
    return g;
  }

  function spaghettinet(spec, hw) {
    const g = new Layout(spec.name, "relu6");
    const stem = g.conv(g.input(hw), spec.stem, "stem", { kernel: spec.stem_kernel, stride: 2 });
    const done = new Map([["s0", { name: "s0", octave: 1, x: stem }]]);
    spec.nodes.forEach((node, i) => at(i, () => {
      g.part = node.name;
      let x = join(g, node, node.sources.map((name) => done.get(name)));
      node.layers.forEach((text, j) => {
        const name = `${node.name}_${j}`, y = spaghettiLayer(g, x, text, node.width, name);
        x = j ? g.add([x, y], `${name}_add`) : y;
      });
      done.set(node.name, { name: node.name, octave: node.octave, x });
    }));
    return ssdHeads(g, spec.outputs.map((name) => done.get(name).x), spec.num_classes);
  }

  // SSDLite on a classifier or on MobileDet

  function mobilenetMaps(g, name, x) {
    const spec = getSpec(name);
    if (spec.class !== "Classifier") throw new UsageError(`${name} is no classifier with blocks`);
    x = g.conv(x, spec.stem, "stem", { kernel: spec.stem_kernel, stride: 2 });
    let stride = 2, middle = null;
    spec.blocks.forEach((block, i) => {
      g.part = blockName(i);
      x = ibn(g, x, block, blockName(i));
      stride *= block.stride;
      if (stride === 16) middle = `${blockName(i)}_expand`;
    });
    if (!g.ops.has(middle)) throw new UsageError(`${name} has no widened map of stride 16`);
    return [g.get(middle), x];
  }

  const nearestEight = (channels) => Math.max(8, Math.floor(Math.floor(channels + 4) / 8) * 8);
  const DET_KINDS = { t: "tucker", f: "fused", i: "ibn" };

  function parseDet(text) {
    const found = /^([tfi])\((\d{1,5}(?:,\d{1,5})*)\)(r?)$/.exec(text);
    const numbers = found ? found[2].split(",").map(Number) : [];
    if (found && numbers.length === (found[1] === "t" ? 3 : 4) && !numbers.includes(0)) {
      return [found[1], numbers, found[3] === "r"];
    }
    throw new UsageError(`${brief(text)} is no block; blocks are t(before %,after %,channels), `
                         + "f(kernel,expansion,stride,channels) and i(..), with r for a residual");
  }

  function mobiledetBlock(g, x, text, counts) {
    const [kind, numbers, skip] = parseDet(text), word = DET_KINDS[kind];
    counts[word] = counts[word] === undefined ? 0 : counts[word] + 1;
    const name = `${word}${counts[word]}`;
    if (kind === "t") {
      const [before, after, channels] = numbers;
      let y = g.conv(x, nearestEight(channelsOf(x) * before / 100), `${name}_conv0`);
      y = g.conv(y, nearestEight(channels * after / 100), `${name}_conv1`, { kernel: 3 });
      return g.conv(y, channels, `${name}_conv2`, LINEAR);
    }
    const [kernel, expansion, stride, channels] = numbers;
    const wide = channelsOf(x) * expansion;
    let y;
    if (kind === "f") y = g.conv(x, wide, `${name}_conv0`, { kernel, stride });
    else {
      y = g.conv(x, wide, `${name}_conv0`);
      y = g.depthwise(y, `${name}_depthwise`, { kernel, stride });
    }
    y = g.conv(y, channels, `${name}_conv1`, LINEAR);
    return skip ? g.add([x, y], `${name}_add`) : y;
  }

  function mobiledetMaps(g, stages, x) {
    const counts = {}, ends = [];
    x = g.conv(x, 32, "stem", { kernel: 3, stride: 2 });
    stages.forEach((stage, i) => at(i, () => {
      g.part = `stage${i}`;
      for (const text of String(stage).trim().split(/\s+/)) x = mobiledetBlock(g, x, text, counts);
      ends.push(x);
    }));
    if (ends.length < 2) throw new UsageError("the body needs at least two stages");
    return ends.slice(-2);
  }

  function ssd(spec, hw) {
    const named = typeof spec.body === "string";
    const g = new Layout(spec.name, named ? "relu" : "relu6"), image = g.input(hw);
    const maps = named ? mobilenetMaps(g, spec.body, image) : mobiledetMaps(g, spec.body, image);
    spec.extra.forEach(([middle, channels], n) => {
      const i = n + 2;
      g.part = `extra${i}`;
      const relu6 = { act: "relu6" };
      let x = g.conv(maps[maps.length - 1], middle, `extra${i}_1x1`, relu6);
      x = g.depthwise(x, `extra${i}_depthwise`, { stride: 2, ...relu6 });
      maps.push(g.conv(x, channels, `extra${i}`, relu6));
    });
    return ssdHeads(g, maps, spec.num_classes);
  }

  const LAYOUTS = { Classifier: classifier, DeepLab: deeplab, Autoseg: autoseg,
                    SpaghettiNet: spaghettinet, SSD: ssd };

  function layout(spec) {
    if (LAYOUTS[spec.class]) return LAYOUTS[spec.class](spec, imageSize(spec.image_size));
    throw new UsageError(`${spec.name} is built by keras.applications; build it to count it`);
  }

  // ---- costs ----

  function operators(spec) { // as models.costs counts them
    const found = [];
    for (const op of layout(spec).ops.values()) {
      if (op.kind === "input") continue;
      let weights = 0;
      if (op.kind === "conv" || op.kind === "depthwise") {
        weights = prod(op.kernel) * channelsOf({ shape: op.inputs[0] }) / op.groups
                  * channelsOf(op);
      }
      const bias = op.bias ? channelsOf(op) : 0, norm = op.norm ? 2 * channelsOf(op) : 0;
      found.push({
        name: op.name, kind: op.kind, part: op.part, inputs: op.inputs, output: op.shape, groups: op.groups,
        kernel: op.kernel,
        weights, trainable: weights + bias + norm, params: weights + bias + 2 * norm,
        macs: prod(op.shape.slice(0, -1)) * weights,
      });
    }
    return found;
  }

  function total(ops) {
    const costs = { trainable: 0, params: 0, macs: 0 };
    for (const key of Object.keys(costs)) costs[key] = sum(ops.map((o) => o[key]));
    return costs;
  }

  // ---- latency: measure.workload and measure.latency ----

  function plainOperator(name, kind, into, output) {
    const part = name.split("_")[0];
    return { name, kind, part, inputs: [into], output, groups: 1, weights: 0, params: 0, trainable: 0,
             macs: 0 };
  }

  function maskOperators(hw, logits, argmax) {
    if (!data.argmax.includes(argmax)) throw unknown("argmax", argmax, data.argmax);
    if (argmax === "none") return [];
    const factor = argmax === "default" ? 1 : Number(argmax.slice(-1));
    const [height, width] = hw.map((side) => Math.floor(side / factor));
    const size = [height, width, logits[logits.length - 1]];
    const scores = plainOperator("mask_resize", "resize", logits, size);
    if (factor === 1) return [scores];
    const wide = [height, hw[1], 1];
    return [scores, plainOperator("mask_columns", "tile", [height, width, 1], wide),
            plainOperator("mask_rows", "tile", wide, [...hw, 1])];
  }

  function workload(spec, argmax) { // all that the chip does
    const found = operators(spec), hw = imageSize(spec.image_size);
    const last = found[found.length - 1].output;
    const tail = taskOf(spec) === "segmentation" ? maskOperators(hw, last, argmax || "default")
                                                 : [];
    return [plainOperator("image", "image", [...hw, 3], [...hw, 3]), ...found, ...tail];
  }

  const CONVOLUTIONS = ["conv", "depthwise", "dense"];
  const MOVES = ["image", "resize", "tile", "copy", "stream"];
  const POOLS = ["average_pool", "max_pool", "global_pool"], ELEMENTWISE = ["add", "pad"];

  function quantities(o, { lanes, simd, copies }) { // of one operator that counts
    const into = o.inputs[0], out = prod(o.output), elementwise = ELEMENTWISE.includes(o.kind);
    const size = elementwise ? sum(o.inputs.map(prod)) : prod(into);
    const inputs = into[into.length - 1], outputs = o.output[o.output.length - 1];
    const pixels = prod(o.output.slice(0, -1));
    const pool = POOLS.includes(o.kind);
    const area = o.weights ? Math.floor(o.weights * o.groups / (inputs * outputs))
      : Math.max(prod(o.kernel || [1]), Math.floor(prod(into.slice(0, -1)) / Math.max(pixels, 1)));
    const convolution = CONVOLUTIONS.includes(o.kind), depthwise = o.kind === "depthwise";
    const full = convolution && !depthwise, grouped = full && o.groups > 1;
    const positions = pixels * area;
    const of_group = roundUp(Math.floor(inputs / o.groups), simd)
                     * roundUp(Math.floor(outputs / o.groups), lanes);
    const moved = convolution ? (size + out) * (1 + (grouped && copies ? 1 : 0)) : 0;
    return [
      full ? positions * o.groups * of_group / 1e9 : 0,
      depthwise ? positions * roundUp(outputs, lanes) / 1e9 : 0,
      moved / 1e6,
      convolution ? o.weights / 1e6 : 0,
      grouped ? o.groups : Number(convolution || pool || elementwise),
      grouped ? 2 : 0,
      o.kind === "resize" || o.kind === "tile" ? out / 1e6 : 0,
      o.kind === "image" ? size / 1e6 : 0,
      pool ? positions * roundUp(outputs, lanes) / 1e9 : 0,
      elementwise ? (size + out) / 1e6 : 0,
      o.kind === "stream" ? o.weights / 1e6 : 0,
    ];
  }

  const dot = (a, b) => a.reduce((all, x, i) => all + x * b[i], 0);

  function exposed(amounts, units, overlap) { // ms of each quantity of one operator
    const parts = amounts.map((a, i) => a * units[i]), multiply = parts[0] + parts[1] + parts[8];
    if (overlap === "weights") {
      if (parts[3] < multiply + parts[2]) parts[3] = 0;
      else parts[0] = parts[1] = parts[2] = parts[8] = 0;
    }
    if (overlap === "compute") {
      if (parts[2] < multiply) parts[2] = 0;
      else parts[0] = parts[1] = parts[8] = 0;
    }
    return parts;
  }

  const counts = (o, others) => CONVOLUTIONS.includes(o.kind) || MOVES.includes(o.kind)
    || (others && (POOLS.includes(o.kind) || ELEMENTWISE.includes(o.kind)));

  function timesOf(fit, ops) { // ms of each quantity, a row an operator that counts
    const { exponents, units_ms } = data.latency;
    const units = units_ms.map((unit, i) => unit * Math.exp(dot(exponents[i], fit.logs)));
    return ops.filter((o) => counts(o, fit.others)).map((o) => exposed(quantities(o, fit), units, fit.overlap));
  }

  function partsOf(fit, ops) { // (12): ms of each quantity, and the fixed part
    const rows = timesOf(fit, ops), fixed = Math.exp(fit.logs[fit.logs.length - 1]);
    return [...data.latency.quantities.map((_, i) => sum(rows.map((row) => row[i]))), fixed];
  }

  function erfc(x) { // to 1e-12: a series for small x, a continued fraction for large
    if (x < 0) return 2 - erfc(-x);
    if (x < 2.5) {
      let term = x, total = x;
      for (let n = 1; n < 80; n++) { term *= -x * x / n; total += term / (2 * n + 1); }
      return 1 - 2 / Math.sqrt(Math.PI) * total;
    }
    let fraction = 0;
    for (let n = 80; n > 0; n--) fraction = n / 2 / (x + fraction);
    return Math.exp(-x * x) / Math.sqrt(Math.PI) / (x + fraction);
  }

  function mixture(fits, ops) { // of normal distributions: what is known of the log of ms
    return fits.map((fit) => {
      const parts = partsOf(fit, ops), ms = sum(parts);
      const slopes = data.latency.coefficients.map((_, c) => {
        return sum(parts.map((part, i) => part * data.latency.part_exponents[i][c])) / ms;
      });
      const variance = dot(slopes, fit.covariance.map((row) => dot(row, slopes)));
      return { weight: fit.weight, mean: Math.log(ms), sd: Math.sqrt(variance) };
    });
  }

  function quantile(known, q) { // ms below which a share q lies
    let low = Math.min(...known.map(({ mean, sd }) => mean - 10 * sd));
    let high = Math.max(...known.map(({ mean, sd }) => mean + 10 * sd));
    for (let n = 0; n < 50; n++) {
      const middle = (low + high) / 2;
      const below = sum(known.map(({ weight, mean, sd }) => {
        return weight * erfc((mean - middle) / sd / Math.SQRT2) / 2;
      }));
      if (below < q) low = middle; else high = middle;
    }
    return Math.exp((low + high) / 2);
  }

  function predictive(known, { relative, rounding_ms }) { // with a measurement's noise and rounding
    const noise = Math.hypot(relative, rounding_ms / quantile(known, 0.5));
    return known.map((part) => ({ ...part, sd: Math.hypot(part.sd, noise) }));
  }

  function outside(ops) { // what lies outside of the published models
    const { smallest_group, image_pixels, macs: limits, resized_mb } = data.latency.known;
    const found = [];
    const groups = ops.filter((o) => o.kind === "conv" && o.groups > 1)
      .map((o) => Math.floor(o.output[o.output.length - 1] / o.groups))
      .filter((outputs) => outputs < smallest_group);
    if (groups.length) found.push(`groups of ${Math.min(...groups)} outputs`);
    const [h, w] = ops[0].inputs[0];
    if (h * w < image_pixels[0] || h * w > image_pixels[1]) found.push(`image of ${h}x${w}`);
    const resized = sum(ops.filter((o) => o.kind === "resize" || o.kind === "tile")
      .map((o) => prod(o.output))) / 1e6;
    if (resized > resized_mb) found.push(`${resized.toFixed(0)} MB resized`);
    const macs = total(ops).macs;
    if (macs < limits[0] || macs > limits[1]) {
      const millions = Number((macs / 1e6).toFixed(0)).toLocaleString("en-US");
      found.push(`${millions} million MACs`);
    }
    return found;
  }

  // measure.coral: what does not fit on the chip streams

  function withStreaming(ops) {
    let kept = 0, streamed = 0;
    for (const o of ops.filter((one) => CONVOLUTIONS.includes(one.kind))) {
      const outputs = o.output[o.output.length - 1];
      const size = Math.floor(o.weights / outputs) * roundUp(outputs, 64);
      if (kept + size <= data.latency.coral.memory) kept += size; else streamed += size;
    }
    if (!streamed) return ops;
    const one = plainOperator("streamed", "stream", [1, 1, 1], [1, 1, 1]);
    return [...ops, { ...one, weights: streamed }];
  }

  function outsideCells(ops) { // what lies outside of the measured cells
    const { seen, pixels, macs: most } = data.latency.coral, others = new Map(), found = [];
    const thousands = (number) => Number(number.toFixed(0)).toLocaleString("en-US");
    for (const o of ops) {
      const kind = o.kind === "conv" && o.groups > 1 ? "group convolution" : o.kind;
      if (!seen.includes(kind) && kind !== "stream") others.set(kind, (others.get(kind) || 0) + 1);
    }
    for (const [kind, count] of others) found.push(`${count} ${kind}`);
    const [h, w] = ops[0].inputs[0];
    if (h * w > pixels) found.push(`image of ${h}x${w}`);
    const macs = sum(ops.filter((o) => CONVOLUTIONS.includes(o.kind)).map((o) => o.macs));
    if (macs > most) found.push(`${thousands(macs / 1e6)} million MACs`);
    const streamed = sum(ops.filter((o) => o.kind === "stream").map((o) => o.weights)) / 1e6;
    if (streamed) found.push(`${streamed.toFixed(1)} MB of weights that do not fit on the chip`);
    return found;
  }

  function fitsFor(name) { // without the model's own published latency
    const known = Object.hasOwn(data.latency.fits, name);
    return { without: known ? name : null, ...data.latency.fits[known ? name : ""] };
  }

  function evaluate(spec, argmax, like = spec.name, device = "pixel6") { // all that the page shows
    const onCoral = device === "coral", all = workload(spec, argmax);
    const ops = onCoral ? withStreaming(all) : all;
    const chip = onCoral ? { without: null, ...data.latency.coral }
                         : { noise: data.latency.noise, ...fitsFor(like) };
    const { point, ensemble, without } = chip;
    const parts = partsOf(point, ops), known = predictive(mixture(ensemble, ops), chip.noise);
    const tail = (1 - data.latency.level) / 2;
    const rows = timesOf(point, ops), counted = ops.filter((o) => counts(o, point.others));
    counted.forEach((o, i) => { o.ms = sum(rows[i]); });
    return {
      ...total(ops), ms: sum(parts), low: quantile(known, tail), high: quantile(known, 1 - tail),
      parts: Object.fromEntries([...data.latency.quantities, "fixed"]
        .map((name, i) => [name, parts[i]])),
      fixed: parts[parts.length - 1], operators: ops, without,
      extrapolated: onCoral ? outsideCells(ops) : outside(ops),
    };
  }

  // ---- the nearest published model ----

  const NEUTRAL = ["class", "name", "family", "dropout", "drop_connect", "corner"]; // cost nothing
  const WHOLE = 4; // changes that a row more or less counts for
  const listed = (value) => (Array.isArray(value) ? value.map(String).join(" ") || "none"
    : value === null ? "none" : typeof value === "object" ? value.name : String(value));
  const alike = (a, b) => JSON.stringify(a) === JSON.stringify(b);

  function rowChanges(a, b) { // of a block, a node, a stage: 'kernel 3 → 5'
    if (a === null || typeof a !== "object" || Array.isArray(a)) {
      return alike(a, b) ? [] : [`${listed(a)} → ${listed(b)}`];
    }
    return Object.keys(a).filter((key) => key !== "class" && !alike(a[key], b[key]))
      .map((key) => `${key.replace("_", " ")} ${listed(a[key])} → ${listed(b[key])}`);
  }

  function rowChange(word, from, to, i, j) { // {text, cost} of one step
    if (from === undefined) return { text: `${word} ${j} is new`, cost: WHOLE };
    if (to === undefined) return { text: `${word} ${i} of it is gone`, cost: WHOLE };
    const found = rowChanges(from, to);
    return { text: `${word} ${j}: ${found.join(", ")}`, cost: Math.min(found.length, 2 * WHOLE) };
  }

  function listChanges(word, a, b) { // the fewest changes that make the rows b of the rows a
    const best = Array.from({ length: a.length + 1 }, () => []);
    for (let i = 0; i <= a.length; i++) for (let j = 0; j <= b.length; j++) {
      const ways = [];
      if (j) ways.push([i, j - 1, rowChange(word, undefined, b[j - 1], i, j - 1)]); // a copy is the later
      if (i) ways.push([i - 1, j, rowChange(word, a[i - 1], undefined, i - 1, j)]);
      if (i && j) ways.push([i - 1, j - 1, rowChange(word, a[i - 1], b[j - 1], i - 1, j - 1)]);
      const totals = ways.map(([k, l, change]) => best[k][l].total + change.cost);
      const total = ways.length ? Math.min(...totals) : 0, way = ways[totals.indexOf(total)];
      best[i][j] = { total, way };
    }
    const found = [];
    for (let i = a.length, j = b.length; best[i][j].way;) {
      const [k, l, change] = best[i][j].way;
      if (change.cost) found.unshift(change);
      [i, j] = [k, l];
    }
    return found;
  }

  const ROWS = { blocks: "block", nodes: "node", body: "stage", extra: "smaller map" };

  function changes(a, b) { // what makes the spec b of a, of one class: [{text, cost}]
    const found = [];
    for (const { name } of data.classes[a.class]) {
      const [from, to] = [a[name], b[name]];
      if (NEUTRAL.includes(name) || alike(from, to)) continue;
      if (name in ROWS && Array.isArray(from) && Array.isArray(to)) {
        found.push(...listChanges(ROWS[name], from, to));
        continue;
      }
      const bodies = name === "backbone" ? [from, to].map((v) => v && (v.class ? v : getSpec(v))) : [];
      if (bodies.length && bodies.every((v) => v && v.class === "Classifier")) {
        const inner = changes(...bodies);
        const text = `backbone ${listed(from)} → ${listed(to)}`;
        const cost = sum(inner.map((change) => change.cost));
        found.push(...(typeof to === "string" && cost ? [{ text, cost }] : inner));
        continue;
      }
      found.push({ text: `${name.replaceAll("_", " ")} ${listed(from)} → ${listed(to)}`, cost: 1 });
    }
    return found;
  }

  function nearest(spec, first = null) { // {model, cost, changes}; of equally near ones the first
    let best = null;
    const names = Object.keys(data.specs).filter((name) => !data.variants.includes(name)
      && data.specs[name].class === spec.class);
    for (const name of [...names.filter((n) => n === first), ...names]) {
      const found = changes(data.specs[name], spec), cost = sum(found.map((c) => c.cost));
      if (best === null || cost < best.cost) best = { model: name, cost, changes: found };
    }
    return best && { ...best, changes: best.changes.map((change) => change.text) };
  }

  return { UsageError, check, parse, getSpec, taskOf, backboneOf, evaluate, layout, groupsOf,
           parseLayer, parseDet, blockName, sum, nearest };
})();
