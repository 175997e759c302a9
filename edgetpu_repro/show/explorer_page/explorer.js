// The page: a state (spec, argmax, where it started), what is drawn of it, and its address.
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const state = { start: null, spec: null, argmax: "default", device: "pixel6" };
  const DEVICES = EXPLORER.latency.devices;
  const HIDDEN = ["family", "dropout", "drop_connect", "corner"]; // nothing that costs
  const LABELS = {
    stem_kernel: "stem kernel", num_classes: "classes", image_size: "image (pixels)",
    top: "top channels", low_level: "low-level filters", aspp: "ASPP filters",
    pool: "pool window", level: "decoder map", low_map: "decoder operator", rates: "ASPP rates",
    decoder: "decoder filters", cells: "BiFPN cells", filters: "head filters",
  };
  const FIRST = "mobilenet_edgetpu_v2_xs";

  // ---- small helpers ----

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key in node && key !== "list") node[key] = value; else node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  }

  function svg(tag, attributes = {}, text = null) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== null) node.textContent = text;
    return node;
  }

  const copy = (value) => structuredClone(value);
  const number = (n) => n.toLocaleString("en-US");
  const millions = (n) => (n / 1e6).toLocaleString("en-US", { maximumFractionDigits: 1,
                                                              minimumFractionDigits: 1 });
  const ms = (n) => n.toFixed(n < 9.995 ? 3 : 2);
  const short = (name) => name.replace("deeplabv3plus_mobilenet_edgetpuv2", "DeepLabV3+")
    .replace("mobilenet_edgetpu_v2", "V2").replace("mobilenet_edgetpu", "V1")
    .replace("autoseg_edgetpu", "Autoseg").replace("spaghettinet_edgetpu", "SpaghettiNet")
    .replace("_ade20k_32", "").replaceAll("_", " ");

  function show(error) { // one line, and the row that it is about
    if (!(error instanceof Model.UsageError)) { throw error; }
    $("message").textContent = error.message;
    $("message").hidden = false;
    $("result").classList.add("stale");
    document.querySelectorAll("tr[data-row]").forEach((row) => {
      row.classList.toggle("bad", Number(row.dataset.row) === error.row);
    });
  }

  function clear() {
    $("message").hidden = true;
    $("result").classList.remove("stale");
    document.querySelectorAll("tr.bad").forEach((row) => row.classList.remove("bad"));
  }

  // ---- the address ----

  function compact(value) { // a spec without what is default
    if (Array.isArray(value)) return value.map(compact);
    if (value === null || typeof value !== "object") return value;
    const out = { class: value.class };
    for (const field of EXPLORER.classes[value.class]) {
      const given = value[field.name];
      if ("default" in field && JSON.stringify(field.default) === JSON.stringify(given)) continue;
      out[field.name] = compact(given);
    }
    return out;
  }

  function pack(text) {
    const bytes = new TextEncoder().encode(text);
    const binary = Array.from(bytes, (b) => String.fromCharCode(b)).join("");
    return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  }

  function unpack(text) {
    let binary;
    try { binary = atob(text.replaceAll("-", "+").replaceAll("_", "/")); } catch {
      throw new Model.UsageError("the address holds no model: it is cut or changed");
    }
    return new TextDecoder().decode(Uint8Array.from(binary, (c) => c.charCodeAt(0)));
  }

  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const registered = (name) => (Object.hasOwn(EXPLORER.specs, name) ? EXPLORER.specs[name] : null);

  function address() {
    const words = new URLSearchParams();
    words.set("model", state.start);
    if (Model.taskOf(state.spec) === "segmentation") words.set("argmax", state.argmax);
    if (state.device !== "pixel6") words.set("device", state.device);
    if (!same(state.spec, registered(state.start))) {
      words.set("spec", pack(JSON.stringify(compact(state.spec))));
    }
    return `#${words}`;
  }

  function fromAddress() {
    const words = new URLSearchParams(location.hash.slice(1));
    const name = words.get("model");
    const start = registered(name) ? name : EXPLORER.aliases[name] || FIRST;
    const argmax = words.get("argmax");
    state.argmax = EXPLORER.argmax.includes(argmax) ? argmax : "default";
    state.device = Object.hasOwn(DEVICES, words.get("device")) ? words.get("device") : "pixel6";
    begin(start);
    if (name !== null && !registered(name) && !EXPLORER.aliases[name]) {
      show(new Model.UsageError(`the address names an unknown model ${name.slice(0, 60)}`));
    }
    if (!words.has("spec")) return;
    try { take(Model.parse(unpack(words.get("spec")))); } catch (error) { show(error); }
  }

  // ---- state ----

  function begin(name) { // from a registered model
    state.start = name;
    take(copy(Model.check(registered(name))));
  }

  function take(spec) { // another spec: everything is drawn anew
    Model.check(spec);
    state.spec = spec;
    draw();
    refresh();
  }

  function rename() { // a changed model does not keep a registered name
    for (const spec of [state.spec, state.spec.backbone]) {
      if (spec === null || typeof spec !== "object") continue;
      const known = registered(spec.name);
      if (known && !same(spec, known)) spec.name = `${spec.name}_edited`;
      const base = String(spec.name).endsWith("_edited") ? spec.name.slice(0, -7) : null;
      if (base && registered(base) && same({ ...spec, name: base }, registered(base))) {
        spec.name = base;
      }
    }
    document.querySelectorAll("input[data-name]").forEach((input) => {
      if (document.activeElement !== input) input.value = input.owner.name;
    });
  }

  function refresh() { // numbers, chart and address of the present state
    let result, nearest, before;
    try {
      rename();
      Model.check(state.spec);
      result = Model.evaluate(state.spec, state.argmax, state.spec.name, state.device);
      nearest = Model.nearest(state.spec, state.start);
      const base = nearest && registered(nearest.model);
      if (base && nearest.cost) {
        before = Model.evaluate(base, state.argmax, state.spec.name, state.device);
      }
    } catch (error) { show(error); window.explorer = { state, result: null }; return; }
    clear();
    drawNumbers(result);
    drawChart(result);
    drawNearest(nearest, result, before);
    drawParts(result);
    drawRows(result);
    $("text").value = `${JSON.stringify(state.spec, null, 1)}\n`;
    const hash = address();
    if (location.hash !== hash) history.replaceState(null, "", hash);
    window.explorer = { state, result, nearest };
  }

  const LAYOUT_CLASSES = ["Classifier", "DeepLab", "Autoseg", "SpaghettiNet", "SSD"];

  // ---- fields and tables ----

  function read(input, kinds) { // what a field holds, as JSON has it
    if (input.type === "checkbox") return input.checked;
    const text = input.value.trim();
    if (kinds.includes("tuple") && !kinds.includes("str")) {
      return text === "" ? [] : text.split(/[\s,]+/).map((word) => (word === "" ? word
        : Number.isNaN(Number(word)) ? word : Number(word)));
    }
    if (text === "" && kinds.includes("NoneType")) return null;
    if (kinds.includes("int") || kinds.includes("float")) {
      return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
    }
    return text;
  }

  function write(value) {
    if (value === null || value === undefined) return "";
    return Array.isArray(value) ? value.join(", ") : String(value);
  }

  function input(record, field, classes = "") {
    const numeric = field.kinds.includes("int") || field.kinds.includes("float");
    const node = make("input", { type: field.kinds.includes("bool") ? "checkbox" : "text",
                                 className: classes });
    if (numeric) node.inputMode = "decimal";
    if (node.type === "checkbox") node.checked = record[field.name];
    else node.value = write(record[field.name]);
    node.dataset.field = field.name;
    node.setAttribute("aria-label", LABELS[field.name] || field.name);
    if (field.name === "name") { node.dataset.name = ""; node.owner = record; }
    node.addEventListener("input", () => {
      record[field.name] = read(node, field.kinds);
      refresh();
    });
    return node;
  }

  function choice(options, value, changed, label) {
    const node = make("select");
    node.setAttribute("aria-label", label);
    for (const option of options) node.append(make("option", { value: option }, option));
    node.value = value;
    node.addEventListener("change", () => changed(node.value));
    return node;
  }

  const rules = (cls, name) => EXPLORER.classes[cls].find((field) => field.name === name);
  const EDITED = ["blocks", "nodes", "body", "extra", "backbone"]; // have tables of their own

  function drawFields(spec, into) {
    for (const field of EXPLORER.classes[spec.class]) {
      if (HIDDEN.includes(field.name) || EDITED.includes(field.name)) continue;
      const title = LABELS[field.name] || field.name.replaceAll("_", " ");
      into.append(make("label", { className: field.name }, title, input(spec, field)));
    }
  }

  function tools(rows, i, blank) { // insert, move up, delete
    const cell = make("td", { className: "tools" });
    const act = (text, title, change) => {
      const button = make("button", { title, type: "button" }, text);
      button.setAttribute("aria-label", `${title} row ${i}`);
      button.addEventListener("click", () => { change(); draw(); refresh(); });
      cell.append(button);
    };
    act("+", "Copy", () => rows.splice(i + 1, 0, blank ? blank(rows[i]) : copy(rows[i])));
    act("↑", "Move up", () => { if (i) rows.splice(i - 1, 0, rows.splice(i, 1)[0]); });
    act("×", "Delete", () => { if (rows.length > 1) rows.splice(i, 1); });
    return cell;
  }

  const COMPUTED = ["output", "parameters", "MACs (M)", "ms"];

  function table(title, columns, rows, cells, options = {}) {
    const head = make("tr", {}, make("th", {}, ""));
    for (const name of columns) head.append(make("th", {}, name));
    for (const name of COMPUTED) head.append(make("th", { className: "number" }, name));
    head.append(make("th", {}, ""));
    const body = make("tbody");
    rows.forEach((record, i) => {
      const row = make("tr", {}, make("td", { className: "number" }, String(i)));
      row.dataset.row = i;
      row.dataset.part = options.part(record, i);
      for (const cell of cells(record, i)) row.append(make("td", {}, cell));
      for (const name of COMPUTED) {
        row.append(make("td", { className: "number" + (name === "ms" ? " bar" : "") }));
      }
      row.append(options.fixed ? make("td") : tools(rows, i, options.blank));
      body.append(row);
    });
    const built = make("table", { className: "rows" }, make("thead", {}, head), body);
    $("tables").append(make("h2", {}, title), make("div", { className: "wide" }, built));
  }

  function drawBlocks(spec) {
    const names = ["kernel", "expand", "stride", "out", "group_size", "id_skip"];
    const columns = ["kind", "kernel", "expand", "stride", "out", "group size", "skip"];
    table(`Blocks of ${spec.name}`, columns, spec.blocks, (block) => {
      const kind = choice(EXPLORER.kinds, block.kind, (value) => {
        block.kind = value;
        if (value.endsWith("grouped") && !block.group_size) block.group_size = 64;
        if (!value.endsWith("grouped")) block.group_size = null;
        draw(); refresh();
      }, "kind");
      return [kind, ...names.map((name) => input(block, rules("Block", name)))];
    }, { part: (_, i) => Model.blockName(i) });
  }

  function drawNodes(spec) {
    const names = ["name", "octave", "sources", "width", "layers"];
    table("Nodes", ["node", "octave", "sources", "width", "layers"], spec.nodes, (node) => {
      return names.map((name) => {
        const classes = { name: "text", sources: "text", layers: "text long" }[name];
        if (name !== "layers") {
          const cell = input(node, rules("Node", name), classes);
          if (name === "name") delete cell.dataset.name;
          return cell;
        }
        const cell = make("input", { type: "text", className: classes });
        cell.setAttribute("aria-label", "layers");
        cell.value = node.layers.join(" ");
        cell.addEventListener("input", () => {
          node.layers = cell.value.trim().split(/\s+/).filter(Boolean);
          refresh();
        });
        return cell;
      });
    }, { part: (node) => node.name, blank: (node) => ({ ...copy(node), name: `${node.name}b` }) });
    $("tables").append(make("p", {}, "i(kernel,expansion,stride): inverted bottleneck; "
      + "g(kernel,expansion,stride,groups): group convolution; s(kernel,stride): separable."));
  }

  function textRows(title, column, rows, parse, part) {
    table(title, [column], rows, (value, i) => {
      const cell = make("input", { type: "text", className: "text long" });
      cell.setAttribute("aria-label", column);
      cell.value = write(value);
      cell.addEventListener("input", () => { rows[i] = parse(cell.value); refresh(); });
      return [cell];
    }, { part: (_, i) => part(i), fixed: title === "Stages" });
  }

  function classifiers() {
    const found = Object.entries(EXPLORER.specs).filter(([, s]) => s.class === "Classifier");
    return found.map(([name]) => name);
  }

  function drawBackbone(spec) { // by name, or its blocks
    const inline = typeof spec.backbone === "object";
    const own = inline ? spec.backbone.name : null;
    const options = [...(inline ? [own] : []), ...classifiers(), "mobilenet_v2"];
    const select = choice([...new Set(options)], inline ? own : spec.backbone, (value) => {
      spec.backbone = value;
      draw(); refresh();
    }, "backbone");
    const label = make("label", { className: "name" }, "backbone", select);
    $("fields").append(label);
    if (inline) { drawBlocks(spec.backbone); return; }
    if (Model.getSpec(spec.backbone).class !== "Classifier") return;
    const button = make("button", { id: "edit-body" }, "Edit the backbone's blocks");
    button.addEventListener("click", () => {
      spec.backbone = copy(Model.getSpec(spec.backbone));
      draw(); refresh();
    });
    $("tables").append(button);
  }

  function drawSSD(spec) {
    if (typeof spec.body === "string") {
      const select = choice(classifiers(), spec.body, (value) => {
        spec.body = value;
        refresh();
      }, "body");
      $("fields").append(make("label", { className: "name" }, "body", select));
    } else {
      textRows("Stages", "blocks", spec.body, (text) => text.trim(), (i) => `stage${i}`);
      $("tables").append(make("p", {}, "f(kernel,expansion,stride,channels): fused; i(..): "
        + "inverted bottleneck; t(before %,after %,channels): Tucker; r: with a residual."));
    }
    const pairs = (text) => text.split(/[\s,]+/).filter(Boolean).map(Number);
    textRows("Smaller maps", "middle, output channels", spec.extra, pairs, (i) => `extra${i + 2}`);
  }

  function draw() { // everything that is edited
    const spec = state.spec;
    $("fields").replaceChildren();
    $("tables").replaceChildren();
    $("model").value = state.start;
    $("argmax").value = state.argmax;
    $("device").value = state.device;
    $("argmax-label").hidden = Model.taskOf(spec) !== "segmentation";
    drawFields(spec, $("fields"));
    if (spec.class === "Classifier") drawBlocks(spec);
    if (spec.class === "DeepLab" || spec.class === "Autoseg") drawBackbone(spec);
    if (spec.class === "SpaghettiNet") drawNodes(spec);
    if (spec.class === "SSD") drawSSD(spec);
  }

  // ---- results ----

  function difference(now, before) {
    const percent = 100 * (now / before - 1);
    return `${percent < 0 ? "−" : "+"}${Math.abs(percent).toFixed(1)} %`;
  }

  function drawNumbers(result) {
    $("params").textContent = number(result.params);
    $("macs").textContent = millions(result.macs);
    $("ms").textContent = ms(result.ms);
    $("interval").textContent = `${ms(result.low)} – ${ms(result.high)}`;
    const notes = [];
    if (result.without) notes.push("Modelled without knowing this model's published latency.");
    if (result.extrapolated.length) {
      const fitted = state.device === "coral" ? "measured cells" : "published models";
      notes.push(`Outside of the ${fitted}: ${result.extrapolated.join(", ")}.`);
    }
    $("notes").textContent = notes.join(" ");
  }

  const MOST = 8; // changes that are listed

  function drawNearest(nearest, result, before) { // which published model this is, and what differs
    const into = $("nearest");
    into.replaceChildren();
    if (!nearest) return;
    const known = published().find((p) => p.model === nearest.model);
    const numbers = known ? ` (published: ${known.accuracy} %, ${known.ms} ms)` : "";
    if (!nearest.cost) {
      into.append(make("p", {}, make("b", {}, nearest.model), `${numbers}: as published.`));
      return;
    }
    const count = nearest.changes.length, rest = nearest.changes.slice(MOST);
    into.append(make("p", {}, make("b", {}, nearest.model), `${numbers} is the nearest, with `
      + `${count} change${count > 1 ? "s" : ""}: parameters `
      + `${difference(result.params, before.params)}, MACs ${difference(result.macs, before.macs)}, `
      + `ms ${difference(result.ms, before.ms)}.`));
    const lines = (texts) => make("ul", {}, ...texts.map((text) => make("li", {}, text)));
    into.append(lines(nearest.changes.slice(0, MOST)));
    if (!rest.length) return;
    into.append(make("details", {}, make("summary", {}, `${rest.length} more`), lines(rest)));
  }

  function published() { // comparable: the same chip, the same task, the same end
    if (state.device !== "pixel6") return [];
    const task = Model.taskOf(state.spec);
    return EXPLORER.published.filter((p) => p.task === task
      && (p.argmax === null || p.argmax === state.argmax));
  }

  function frontierOf(points) { // the quickest ones: each more accurate than all quicker ones
    const out = [];
    for (const p of [...points].sort((a, b) => a.ms - b.ms || b.accuracy - a.accuracy)) {
      if (!out.length || p.accuracy > out[out.length - 1].accuracy) out.push(p);
    }
    return out;
  }

  function ticks(low, high) {
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const found = [];
    for (let t = Math.ceil(low / step) * step; t <= high + 1e-9; t += step) found.push(t);
    return found.map((t) => Number(t.toPrecision(6)));
  }

  function drawChart(result) {
    const points = published(), width = 430, height = 290;
    const frame = { left: 42, right: 12, top: 12, bottom: 38 };
    const xs = [...points.map((p) => p.ms), result.low, result.high];
    const ys = points.length ? points.map((p) => p.accuracy) : [0, 100];
    const grow = (values) => {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const room = 0.12 * (high - low || high);
      return [low - room, high + room];
    };
    const [x0, x1] = grow(xs), [y0, y1] = grow(ys);
    const inner = [width - frame.left - frame.right, height - frame.top - frame.bottom];
    const x = (v) => frame.left + (v - x0) / (x1 - x0) * inner[0];
    const y = (v) => frame.top + (y1 - v) / (y1 - y0) * inner[1];
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    root.append(svg("title", {}, "Published accuracy against published latency, and the "
      + "modelled latency of this model with its interval"));
    root.append(svg("path", { class: "axis",
      d: `M${frame.left} ${frame.top}V${height - frame.bottom}H${width - frame.right}` }));
    for (const t of ticks(x0, x1)) {
      root.append(svg("text", { x: x(t), y: height - frame.bottom + 14, "text-anchor": "middle" },
                      String(t)));
    }
    for (const t of ticks(y0, y1)) {
      root.append(svg("text", { x: frame.left - 6, y: y(t) + 4, "text-anchor": "end" },
                      String(t)));
    }
    root.append(svg("text", { x: (frame.left + width) / 2, y: height - 6,
                              "text-anchor": "middle" }, `ms on the ${DEVICES[state.device]}`));
    root.append(svg("text", { x: 0, y: 0, "text-anchor": "middle",
      transform: `translate(11 ${height / 2 - 12}) rotate(-90)` },
                    EXPLORER.axes[Model.taskOf(state.spec)]));
    const bottom = height - frame.bottom;
    root.append(svg("rect", { class: "band", x: x(result.low), y: frame.top,
      width: Math.max(1, x(result.high) - x(result.low)), height: bottom - frame.top }));
    root.append(svg("line", { class: "mine", x1: x(result.ms), x2: x(result.ms), y1: frame.top,
                              y2: bottom }));
    const line = frontierOf(points);
    const path = line.map((p, i) => `${i ? `H${x(p.ms)}V` : `M${x(p.ms)} `}${y(p.accuracy)}`);
    if (line.length) root.append(svg("path", { class: "frontier", d: path.join("") }));
    drawPoints(root, points.map((p) => ({ ...p, x: x(p.ms), y: y(p.accuracy) })), width);
    $("chart").replaceChildren(root);
    drawNeighbour(result, line);
  }

  function drawPoints(root, points, width) { // with labels that do not cover each other
    const taken = points.map((p) => [p.x - 4, p.y - 4, p.x + 4, p.y + 4]);
    const free = (box) => box[0] > 40 && box[2] < width
      && !taken.some((o) => box[0] < o[2] && o[0] < box[2] && box[1] < o[3] && o[1] < box[3]);
    for (const p of points) {
      const name = short(p.model), long = 7 * name.length;
      const places = [[6, 13], [6, -4], [-6 - long, -4], [-6 - long, 13], [-long / 2, 18],
                      [-long / 2, -9]];
      const boxes = places.map(([dx, dy]) => {
        return [p.x + dx, p.y + dy - 10, p.x + dx + long, p.y + dy + 2];
      });
      const box = boxes.find(free) || boxes.find((b) => b[2] < width) || boxes[0];
      taken.push(box);
      const dot = svg("circle", { cx: p.x, cy: p.y, r: 3.5 });
      dot.append(svg("title", {}, `${p.model}: ${p.accuracy} %, ${p.ms} ms (published)`));
      root.append(dot, svg("text", { class: "name", x: box[0], y: box[1] + 10 }, name));
    }
  }

  function drawNeighbour(result, frontier) {
    const said = ["Points: published. Line and band: this model's latency, modelled, with its 95 %"
      + " interval; its accuracy is known after training."];
    const quick = frontier.filter((p) => p.ms <= result.ms).pop();
    if (state.device !== "pixel6") said[0] = "The page has no latencies of this chip.";
    else if (!frontier.length) said[0] = "No latency was published for this argmax.";
    else if (quick) {
      said.push(`The best published model that is as quick: ${quick.model}, ${quick.accuracy} % `
        + `at ${quick.ms} ms.`);
    } else said.push("No published model of this task is as quick.");
    $("neighbour").textContent = said.join(" ");
  }

  function drawParts(result) {
    const rows = Object.entries(result.parts).filter(([, value]) => value > 0);
    const most = Math.max(...rows.map(([, value]) => value));
    const body = rows.map(([name, value]) => {
      const bar = make("td", { className: "number bar" }, ms(value));
      bar.style.setProperty("--share", `${100 * value / most}%`);
      return make("tr", {}, make("td", {}, EXPLORER.parts[name]), bar);
    });
    $("parts").tBodies[0].replaceChildren(...body);
  }

  function drawRows(result) {
    const rows = [...document.querySelectorAll("tr[data-part]")];
    const known = rows.map((row) => row.dataset.part), groups = new Map();
    for (const o of result.operators) {
      if (!groups.has(o.part)) groups.set(o.part, []);
      groups.get(o.part).push(o);
    }
    const times = [...groups.values()].map((ops) => Model.sum(ops.map((o) => o.ms || 0)));
    const most = Math.max(...times, result.fixed);
    const shown = (ops) => {
      const total = (key) => Model.sum(ops.map((o) => o[key] || 0));
      return [ops[ops.length - 1].output.join("×"), number(total("params")),
              millions(total("macs")), ms(total("ms")), 100 * total("ms") / most];
    };
    const put = (cells, values) => {
      values.slice(0, 4).forEach((value, i) => { cells[i].textContent = value; });
      cells[3].style.setProperty("--share", `${values[4]}%`);
    };
    for (const row of rows) {
      const cells = [...row.cells].slice(-5, -1), ops = groups.get(row.dataset.part);
      put(cells, ops ? shown(ops) : ["", "", "", "", 0]);
    }
    $("others-title").textContent = rows.length ? "All other parts" : "Part by part";
    const others = [...groups].filter(([part]) => !known.includes(part));
    const body = others.map(([part, ops]) => [part, shown(ops)]);
    body.push(["any network", ["", "", "", ms(result.fixed), 100 * result.fixed / most]]);
    $("others").tBodies[0].replaceChildren(...body.map(([part, values]) => {
      const cells = [0, 1, 2, 3].map((i) => {
        return make("td", { className: "number" + (i === 3 ? " bar" : "") });
      });
      put(cells, values);
      return make("tr", {}, make("td", {}, part), ...cells);
    }));
  }

  // ---- controls ----

  function fillModels() {
    const tasks = { classification: "Classifiers", segmentation: "Segmentation",
                    detection: "Detection" };
    for (const [task, label] of Object.entries(tasks)) {
      const group = make("optgroup", { label });
      for (const [name, spec] of Object.entries(EXPLORER.specs)) {
        if (EXPLORER.tasks[spec.class] !== task || !LAYOUT_CLASSES.includes(spec.class)) continue;
        group.append(make("option", { value: name }, name));
      }
      $("model").append(group);
    }
    for (const [value, text] of Object.entries(DEVICES)) {
      $("device").append(make("option", { value }, text));
    }
    for (const name of EXPLORER.argmax) $("argmax").append(make("option", { value: name }, name));
  }

  function takeText(text) {
    try { take(Model.parse(text)); } catch (error) { show(error); }
  }

  function save(content, name, type) {
    const url = URL.createObjectURL(new Blob([content], { type }));
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  function download() {
    save(`${JSON.stringify(state.spec, null, 1)}\n`, `${state.spec.name}.json`, "application/json");
  }

  function built() { // {name, bytes}: the model as a float file with random weights
    return { name: `${state.spec.name}.tflite`, bytes: TFLite.file(Model.check(state.spec)) };
  }

  function downloadFile() {
    try {
      const { name, bytes } = built();
      save(bytes, name, "application/octet-stream");
    } catch (error) { show(error); }
  }

  function time() { // the demo in another tab asks for the model
    let file;
    try { file = built(); } catch (error) { show(error); return; }
    const tab = window.open(`${EXPLORER.demo}#explorer`);
    if (!tab) {
      show(new Model.UsageError("the browser did not open a tab: allow it, or use Download .tflite"));
      return;
    }
    const give = (event) => {
      if (event.source !== tab || event.origin !== location.origin || event.data !== "ready") return;
      window.removeEventListener("message", give);
      tab.postMessage(file, location.origin, [file.bytes.buffer]);
    };
    window.addEventListener("message", give);
  }

  async function copyLink() {
    try { await navigator.clipboard.writeText(location.href); } catch {
      window.prompt("The address of this model", location.href);
      return;
    }
    $("copy").textContent = "Copied";
    setTimeout(() => { $("copy").textContent = "Copy link"; }, 1500);
  }

  fillModels();
  $("model").addEventListener("change", () => begin($("model").value));
  $("argmax").addEventListener("change", () => { state.argmax = $("argmax").value; refresh(); });
  $("device").addEventListener("change", () => { state.device = $("device").value; refresh(); });
  $("reset").addEventListener("click", () => begin(state.start));
  $("copy").addEventListener("click", copyLink);
  $("download").addEventListener("click", download);
  $("tflite").addEventListener("click", downloadFile);
  $("time").addEventListener("click", time);
  $("apply").addEventListener("click", () => takeText($("text").value));
  $("file").addEventListener("change", async () => {
    const [file] = $("file").files;
    if (file) takeText(await file.text());
    $("file").value = "";
  });
  window.addEventListener("hashchange", () => {
    if (location.hash !== address()) fromAddress();
  });
  $("time").hidden = !EXPLORER.demo || location.protocol === "file:"; // the demo needs a server
  if (EXPLORER.home) { $("home").href = EXPLORER.home; $("home").hidden = false; }
  fromAddress();
})();
