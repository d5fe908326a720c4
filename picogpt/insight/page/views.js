// What the page shows. `chosen` is what was clicked or reached with the keyboard, `pointed` what the pointer is over;
// together they are what is shown. Each view is a function of this that brings one part of the page up to date.

"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const model = data.model;
const tokens = data.tokens; // [n_seq] of {id, text, name, bits}; the name shows spaces and newlines
const n_seq = tokens.length;
const element = (id) => document.getElementById(id);

// arrays

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

// An array of numbers with a shape: at(i, j) is the row, or the number, at [i, j].
function unpack({ shape, type, base64 }) {
  const types = { uint8: Uint8Array, int8: Int8Array, uint32: Uint32Array, float32: Float32Array };
  const flat = new types[type](bytesOf(base64).buffer);
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((size, n) => size * n, 1));
  const at = (...index) => {
    const start = index.reduce((sum, i, axis) => sum + i * strides[axis], 0);
    return index.length === shape.length ? flat[start] : flat.subarray(start, start + strides[index.length - 1]);
  };
  return { shape, at };
}

const next = { which: unpack(data.next.which), logits: unpack(data.next.logits) };
const tails = { logits: unpack(data.next.tail_logits), counts: unpack(data.next.tail_counts) };
const lens = { which: unpack(data.lens.which), probabilities: unpack(data.lens.probabilities) };
const patterns = unpack(data.patterns); // [n_layer, n_head, n_seq * (n_seq + 1) / 2]: rows of the lower triangle
const strips = Object.fromEntries(
  Object.entries(data.strips).map(([name, strip]) => [name, { values: unpack(strip.values), largest: unpack(strip.largest) }]),
);

// The weight of key j for query i; a byte is 255 times its root, which keeps small weights apart.
function weight(layer, head, i, j) {
  return j > i ? 0 : (patterns.at(layer, head, (i * (i + 1)) / 2 + j) / 255) ** 2;
}

function tailOf(i) {
  const bins = Array.from(tails.logits.at(i), (logit, bin) => ({ logit, count: tails.counts.at(i, bin) }));
  return bins.filter(({ count }) => count > 0);
}

// words

const nameOf = (which) => data.names[which];
const quoted = (i) => `“${tokens[i].name}”`;
const number = (n) => n.toLocaleString("en");

function percent(p) {
  if (p === 0) return "0 %";
  if (p < 0.001) return "< 0.1 %";
  return `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)} %`;
}

function create(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// state

const chosen = { token: n_seq - 1, ...sharpest(), key: null, lens: null };
const drawing = { temperature: 1, k: 0, p: 1 };
let pointed = {};
let waiting = false;
const views = [];

// The head to begin with: the one that looks most firmly at single tokens other than the first one and itself.
function sharpest() {
  let best = { layer: 0, head: 0, sum: 0 };
  for (let layer = 0; layer < model.n_layer; layer++) {
    for (let head = 0; head < model.n_head; head++) {
      const sum = tokens.reduce((sum, _, i) => sum + firmest(layer, head, i), 0);
      if (sum > best.sum) best = { layer, head, sum };
    }
  }
  return { layer: best.layer, head: best.head };
}

function firmest(layer, head, i) {
  let most = 0;
  for (let j = 1; j < i; j++) most = Math.max(most, weight(layer, head, i, j));
  return most;
}

function choose(change) {
  Object.assign(chosen, change);
  pointed = {};
  update();
}

function point(change) {
  pointed = change;
  update();
}

function update() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const shown = { ...chosen, ...pointed };
    for (const view of views) view(shown);
  });
}

// One element of a group can be reached with the tab key, the others from there with the arrow keys.
function arrows(group, items, columns, onChoose) {
  group.addEventListener("keydown", (event) => {
    const at = items.indexOf(event.target);
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -at, End: items.length - 1 - at };
    if (at < 0 || !(event.key in moves)) return;
    event.preventDefault();
    const to = items[at + moves[event.key]];
    if (to === undefined) return;
    to.focus();
    onChoose(items.indexOf(to));
  });
}

function reachable(items, at) {
  items.forEach((item, i) => (item.tabIndex = i === at ? 0 : -1));
}

function visibleWithin(scroller, item) {
  const outer = scroller.getBoundingClientRect(), inner = item.getBoundingClientRect();
  if (inner.left < outer.left || inner.right > outer.right) {
    scroller.scrollLeft += (inner.left + inner.right - outer.left - outer.right) / 2;
  }
}

// the text, three times: to choose from, coloured by surprise, and coloured by attention

function makeTokens(place, label, describe) {
  place.setAttribute("role", "listbox");
  place.setAttribute("aria-label", label);
  const items = tokens.map(({ text, name }, i) => {
    const item = create("span", "token");
    item.setAttribute("role", "option");
    item.append(...shownText(text, name));
    item.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && point({ token: i }));
    item.addEventListener("click", () => choose({ token: i, key: null }));
    place.append(item);
    if (text.endsWith("\n") && !place.classList.contains("line")) place.append(create("br"));
    return item;
  });
  place.addEventListener("pointerleave", () => point({}));
  arrows(place, items, 1, (i) => choose({ token: i, key: null }));
  views.push((shown) => {
    items.forEach((item, i) => {
      item.setAttribute("aria-selected", i === shown.token);
      item.setAttribute("aria-label", describe(i, shown));
    });
    reachable(items, chosen.token);
  });
  return items;
}

// A newline is drawn as an arrow, and text that does not print by the name that Python has given to it.
function shownText(text, name) {
  const shown = create("bdi", text.trim() === "" && text !== " " ? "faint" : "", text.replaceAll("\n", "↵"));
  return text === "" ? [create("bdi", "faint", name)] : [shown];
}

function bits(i) {
  return tokens[i].bits === null ? "the first token" : `probability ${percent(2 ** -tokens[i].bits)}`;
}

function setTint(item, share) {
  item.style.setProperty("--tint", `${Math.round(100 * Math.min(Math.max(share, 0), 1))}%`);
}

function makeLine() {
  const items = makeTokens(element("line"), "Choose a token", (i) => `token ${i}, ${tokens[i].name}`);
  views.push(({ token }) => visibleWithin(element("line"), items[token]));
  element("before").addEventListener("click", () => choose({ token: Math.max(chosen.token - 1, 0), key: null }));
  element("after").addEventListener("click", () => choose({ token: Math.min(chosen.token + 1, n_seq - 1), key: null }));
}

function makeText() {
  const items = makeTokens(element("text"), "The text, coloured by surprise", (i) => `token ${i}, ${tokens[i].name}, ${bits(i)}`);
  items.forEach((item, i) => setTint(item, (tokens[i].bits ?? 0) / 12));
  views.push(({ token }) => {
    const { id, bits } = tokens[token];
    const surprise = bits === null ? "the first: nothing is expected before it" : `probability ${percent(2 ** -bits)}, surprise ${bits.toFixed(1)} bits`;
    element("token-facts").replaceChildren(create("b", "", quoted(token)), ` is token ${token} of ${n_seq}, number ${id} of the list; ${surprise}`);
    for (const place of document.querySelectorAll(".chosen")) place.textContent = quoted(token);
  });
}

// what may come next

const STEPS_OF_K = [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200, 250];
const N_BARS = 12;

function makeNext() {
  const bars = Array.from({ length: Math.min(N_BARS, next.which.shape[1]) }, makeBar);
  element("bars").append(...bars.map((bar) => bar.item));
  views.push(({ token }) => {
    const logits = next.logits.at(token), tail = tailOf(token);
    const plain = distribution(logits, tail, {}), now = distribution(logits, tail, drawing);
    const widest = Math.max(plain.probabilities[0], now.probabilities[0]);
    bars.forEach((bar, i) => drawBar(bar, i, token, plain, now, widest));
    element("next-after").replaceChildren("after ", create("b", "", endOf(token)));
    element("next-rest").textContent = restOf(now, token);
    element("kept").textContent = `${number(now.kept)} of ${number(model.n_vocab)} tokens can be drawn`;
  });
}

function makeBar() {
  const item = create("li"), name = create("bdi", "name"), track = create("span", "track"), value = create("span", "value");
  const ghost = create("i", "ghost"), fill = create("i", "fill");
  track.append(fill, ghost);
  item.append(name, track, value);
  return { item, name, ghost, fill, value };
}

function drawBar({ item, name, ghost, fill, value }, i, token, plain, now, widest) {
  const which = next.which.at(token, i), p = now.probabilities[i];
  const follows = token + 1 < n_seq && data.ids[which] === tokens[token + 1].id;
  name.textContent = nameOf(which);
  item.classList.toggle("dropped", p === 0);
  item.classList.toggle("follows", follows);
  item.title = follows ? "the text goes on with this one" : "";
  fill.style.width = `${(100 * p) / widest}%`;
  ghost.style.left = `${(100 * plain.probabilities[i]) / widest}%`;
  value.textContent = percent(p);
}

// The last words before a place, for a heading.
function endOf(token) {
  const before = tokens.slice(Math.max(token - 5, 0), token + 1).map(({ name }) => name).join("").replaceAll("·", " ");
  return `${token > 5 ? "… " : ""}${before.trimStart()}`;
}

function restOf(now, token) {
  const listed = now.probabilities.slice(0, N_BARS).reduce((sum, p) => sum + p, 0);
  const more = `all others together: ${percent(Math.max(1 - listed, 0))}`;
  if (token + 1 === n_seq) return more;
  const at = Array.from(next.which.at(token)).findIndex((which) => data.ids[which] === tokens[token + 1].id);
  const p = at < 0 ? `not among the ${next.which.shape[1]} likeliest` : `place ${at + 1}, ${percent(now.probabilities[at])}`;
  return `${more}. The text goes on with ${quoted(token + 1)}: ${p}`;
}

function makeSettings() {
  const ks = [...STEPS_OF_K.filter((k) => k < next.which.shape[1]), 0];
  const temperature = element("temperature"), k = element("top-k"), p = element("top-p");
  k.max = ks.length - 1;
  k.defaultValue = ks.length - 1;
  const read = () => {
    Object.assign(drawing, { temperature: +temperature.value, k: ks[k.value], p: +p.value });
    tell(temperature, drawing.temperature === 0 ? "0: greedy" : drawing.temperature.toFixed(2));
    tell(k, drawing.k === 0 ? "all" : String(drawing.k));
    tell(p, drawing.p === 1 ? "1: all" : drawing.p.toFixed(2));
    update();
  };
  element("settings").addEventListener("input", read);
  element("settings").addEventListener("reset", () => setTimeout(read));
  element("settings").addEventListener("submit", (event) => event.preventDefault());
  element("settings").reset();
  read();
}

function tell(slider, text) {
  element(`${slider.id}-value`).textContent = text;
  slider.setAttribute("aria-valuetext", text);
}

// canvases

const colours = new Map();

function colour(name) {
  if (!colours.has(name)) colours.set(name, readColour(name));
  return colours.get(name);
}

function readColour(name) {
  const probe = element("theme");
  probe.style.setProperty("outline-color", `var(--${name})`);
  const [r, g, b] = getComputedStyle(probe).outlineColor.match(/[\d.]+/g).map(Number);
  return [r, g, b];
}

const rgba = ([r, g, b], alpha) => `rgba(${r}, ${g}, ${b}, ${alpha})`;

// Clear a canvas, and fit it to its box if that has changed; what is drawn is measured in the box's pixels.
function fitted(canvas, height) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth;
  const size = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) {
    canvas.style.height = `${height}px`;
    [canvas.width, canvas.height] = size;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width };
}

// how the numbers flow

function makeFlow() {
  const steps = [...document.querySelectorAll(".step")].map(makeStep);
  element("layer").max = model.n_layer - 1;
  element("layer").addEventListener("input", () => choose({ layer: +element("layer").value }));
  views.push((shown) => {
    for (const step of steps) drawStep(step, shown);
    const { token, layer } = shown, last = layer === model.n_layer - 1;
    element("layer").value = layer;
    element("flow-layer").textContent = layer;
    element("flow-id").textContent = number(tokens[token].id);
    element("flow-place").textContent = token;
    element("flow-came").textContent = layer === 0 ? "As it began, above." : `As block ${layer - 1} left it.`;
    element("flow-goes").textContent = last ? "This was the last block." : `It goes on to block ${layer + 1}.`;
    element("flow-best").textContent = bestOf(token);
    for (const place of document.querySelectorAll(".layer")) place.textContent = layer;
    for (const place of document.querySelectorAll(".head")) place.textContent = shown.head;
  });
}

function bestOf(token) {
  const { probabilities } = distribution(next.logits.at(token), tailOf(token), {});
  return probabilities.slice(0, 4).map((p, i) => `“${nameOf(next.which.at(token, i))}” ${percent(p)}`).join(", ");
}

function makeStep(step) {
  const { strip, shape } = step.dataset;
  if (!strip) return {};
  const numbers = create("div", "numbers"), canvas = create("canvas"), note = create("span", "note");
  canvas.setAttribute("role", "img");
  numbers.append(canvas, create("code", "shape", shapeOf(shape)), note);
  step.append(numbers);
  return { strip, canvas, note };
}

function shapeOf(letters) {
  const { n_embd, n_head, n_vocab } = model;
  const sizes = { n_seq, n_embd, n_head, n_vocab, d_head: n_embd / n_head, "4*n_embd": 4 * n_embd };
  return letters.split(" ").map((letter) => sizes[letter]).join(" × ");
}

function drawStep({ strip, canvas, note }, shown) {
  if (!strip) return;
  const { values, text } = numbersOf(strip, shown);
  drawNumbers(canvas, values, strip === "attn.pattern" ? "looks-strong" : null);
  note.textContent = text;
  canvas.setAttribute("aria-label", `${strip} of ${quoted(shown.token)}: ${text}`);
}

// Numbers from -1 to 1 to be drawn for a step, and what there is to say about them.
function numbersOf(strip, { token, layer, head }) {
  if (strip === "attn.pattern") {
    const values = Array.from({ length: n_seq }, (_, j) => weight(layer, head, token, j));
    const most = values.indexOf(Math.max(...values));
    return { values: values.map(Math.sqrt), text: `most on ${quoted(most)}, ${percent(values[most])}` };
  }
  if (strip === "logits") {
    const largest = Array.from(next.logits.at(token).slice(0, 32));
    const scale = Math.max(...largest.map(Math.abs));
    return { values: largest.map((logit) => logit / scale), text: `from ${largest[0].toPrecision(3)} down` };
  }
  const index = { wte: [token], wpe: [token], x: [token], ln_f: [token] }[strip] ??
    (strips[strip].values.shape.length === 4 ? [layer, head, token] : [layer, token]);
  const largest = strips[strip].largest.at(...index);
  const values = Array.from(strips[strip].values.at(...index), (value) => value / 127);
  const first = values.slice(0, 3).map((value) => (value * largest).toPrecision(2).replace("-", "−"));
  return { values, text: `${first.join(", ")}, …` };
}

function drawNumbers(canvas, values, one) {
  const { context, width } = fitted(canvas, 18);
  const positive = colour(one ?? "positive"), negative = colour("negative"), empty = colour("line");
  const cell = width / values.length, gap = cell > 5 ? 1 : 0;
  values.forEach((value, i) => {
    context.fillStyle = rgba(empty, 0.35);
    context.fillRect(i * cell, 0, cell - gap, 18);
    context.fillStyle = rgba(value < 0 ? negative : positive, Math.abs(value));
    context.fillRect(i * cell, 0, cell - gap, 18);
  });
}

// attention

const THUMB = 48; // pixels of a small map: more tokens share them

function makeHeads() {
  const grid = element("heads");
  grid.style.setProperty("--n-head", model.n_head);
  const items = [];
  grid.append(makeHeadsRow("", Array.from({ length: model.n_head }, (_, head) => label("columnheader", head, "head"))));
  for (let layer = 0; layer < model.n_layer; layer++) {
    for (let head = 0; head < model.n_head; head++) items.push(makeHead(layer, head));
    grid.append(makeHeadsRow(layer, items.slice(-model.n_head)));
  }
  grid.addEventListener("pointerleave", () => point({}));
  arrows(grid, items, model.n_head, (at) => choose({ layer: Math.floor(at / model.n_head), head: at % model.n_head }));
  views.push(({ layer, head }) => {
    items.forEach((item, at) => item.setAttribute("aria-selected", at === layer * model.n_head + head));
    reachable(items, chosen.layer * model.n_head + chosen.head);
  });
  drawHeads(items);
  themed.push(() => drawHeads(items));
}

function makeHeadsRow(layer, items) {
  const row = create("div", "heads-row");
  row.setAttribute("role", "row");
  row.append(layer === "" ? create("span") : label("rowheader", layer, "block"), ...items);
  return row;
}

function label(role, n, what) {
  const made = create("span", "heads-label", n);
  made.setAttribute("role", role);
  made.setAttribute("aria-label", `${what} ${n}`);
  return made;
}

function makeHead(layer, head) {
  const item = create("div", "head-map"), canvas = create("canvas");
  item.setAttribute("role", "gridcell");
  item.setAttribute("aria-label", `block ${layer}, head ${head}`);
  canvas.width = canvas.height = Math.min(n_seq, THUMB);
  item.append(canvas);
  item.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && point({ layer, head }));
  item.addEventListener("click", () => choose({ layer, head }));
  return item;
}

function drawHeads(items) {
  const ink = colour("looks-strong");
  items.forEach((item, at) => {
    const layer = Math.floor(at / model.n_head), canvas = item.firstChild;
    canvas.getContext("2d").putImageData(image(layer, at % model.n_head, canvas.width, ink), 0, 0);
  });
}

// A pattern as a picture of size x size pixels. Of weights that share a pixel, the largest shows.
function image(layer, head, size, [r, g, b]) {
  const picture = new ImageData(size, size), row = patterns.at(layer, head);
  const at = Array.from({ length: n_seq }, (_, i) => Math.floor((i * size) / n_seq));
  for (let i = 0, from = 0; i < n_seq; i++) {
    for (let j = 0; j <= i; j++, from++) {
      const pixel = 4 * (at[i] * size + at[j]);
      picture.data.set([r, g, b, Math.max(row[from], picture.data[pixel + 3])], pixel);
    }
  }
  return picture;
}

function makeMap() {
  const place = element("map"), canvas = element("map-canvas");
  const find = (event) => {
    const box = canvas.getBoundingClientRect(), cell = cellOf(canvas.clientWidth);
    const token = Math.floor((event.clientY - box.top) / cell), key = Math.floor((event.clientX - box.left) / cell);
    return token >= 0 && token < n_seq ? { token, key: key >= 0 && key <= token ? key : null } : null;
  };
  canvas.addEventListener("pointermove", (event) => point(find(event) ?? {}));
  canvas.addEventListener("pointerleave", () => point({}));
  canvas.addEventListener("click", (event) => choose(find(event) ?? {}));
  place.addEventListener("keydown", (event) => {
    const key = chosen.key ?? chosen.token;
    const moves = {
      ArrowUp: { token: Math.max(chosen.token - 1, 0), key: Math.min(key, Math.max(chosen.token - 1, 0)) },
      ArrowDown: { token: Math.min(chosen.token + 1, n_seq - 1), key },
      ArrowLeft: { key: Math.max(key - 1, 0) },
      ArrowRight: { key: Math.min(key + 1, chosen.token) },
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose(moves[event.key]);
  });
  views.push((shown) => drawMap(canvas, shown));
}

// The diagonal is labelled, so the cells leave room on the right for the last label.
function cellOf(width) {
  return (width - Math.min(72, width / 5)) / n_seq;
}

function drawMap(canvas, { token, layer, head, key }) {
  const size = n_seq * cellOf(canvas.clientWidth), cell = size / n_seq;
  const { context } = fitted(canvas, size + 2);
  const ink = colour("ink"), line = colour("line"), strong = colour("looks-strong");
  context.fillStyle = rgba(line, 0.35);
  for (let i = 0; i < n_seq; i++) context.fillRect(0, i * cell, (i + 1) * cell, cell);
  drawCells(context, layer, head, size, strong);
  context.strokeStyle = rgba(ink, 0.9);
  context.lineWidth = 1.5;
  context.strokeRect(0.75, token * cell + 0.75, (token + 1) * cell - 1.5, cell - 1.5);
  if (key !== null) context.strokeRect(key * cell + 0.75, key * cell, cell - 1.5, (token + 1 - key) * cell - 0.75);
  drawLabels(context, cell, token, key, ink);
  element("map-name").textContent = `Block ${layer}, head ${head}.`;
  element("map-readout").textContent = key === null ? mostOf(layer, head, token)
    : `${quoted(token)} looks at ${quoted(key)}, token ${key}: ${percent(weight(layer, head, token, key))}`;
}

function drawCells(context, layer, head, size, strong) {
  const small = document.createElement("canvas");
  small.width = small.height = n_seq;
  small.getContext("2d").putImageData(image(layer, head, n_seq, strong), 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, size, size);
}

const MONO = getComputedStyle(document.documentElement).getPropertyValue("--mono");

// Each token's name at its cell of the diagonal, where the empty half begins; only some if the cells are small.
function drawLabels(context, cell, token, key, ink) {
  const height = Math.max(Math.min(cell * 0.72, 13), 10);
  context.textBaseline = "middle";
  for (let i = 0; i < n_seq; i++) {
    const marked = i === token || i === key;
    if (cell < 11 && !marked) continue;
    context.font = `${marked ? `bold ${Math.max(height, 12)}` : height}px ${MONO}`;
    context.fillStyle = rgba(ink, marked ? 1 : 0.55);
    context.fillText(tokens[i].name, (i + 1) * cell + 5, (i + 0.5) * cell);
  }
}

function mostOf(layer, head, token) {
  const keys = Array.from({ length: token + 1 }, (_, j) => j);
  const most = keys.sort((a, b) => weight(layer, head, token, b) - weight(layer, head, token, a)).slice(0, 3);
  return `${quoted(token)} looks at ${most.map((j) => `${quoted(j)} ${percent(weight(layer, head, token, j))}`).join(", ")}`;
}

function makeLooks() {
  const describe = (i, { token, layer, head }) => `token ${i}, ${tokens[i].name}, ${percent(weight(layer, head, token, i))}`;
  const items = makeTokens(element("looks"), "The text, coloured by attention", describe);
  views.push(({ token, layer, head }) => {
    items.forEach((item, i) => {
      setTint(item, Math.sqrt(weight(layer, head, token, i)));
      item.classList.toggle("later", i > token);
    });
  });
}

// the logit lens

function makeLens() {
  const table = element("lens"), head = table.createTHead().insertRow(), cells = [];
  head.append(create("th", "", "after"));
  tokens.forEach(({ name }) => head.append(headingOf(create("bdi", "", name), "col")));
  const body = table.createTBody();
  for (let row = 0; row <= model.n_layer; row++) {
    const line = body.insertRow();
    line.append(headingOf(row === 0 ? "embedding" : `block ${row - 1}`, "row"));
    tokens.forEach((_, token) => line.append(cells[cells.push(makeLensCell(row, token)) - 1]));
  }
  table.addEventListener("pointerleave", () => point({}));
  arrows(table, cells, n_seq, (at) => choose({ lens: Math.floor(at / n_seq), token: at % n_seq, key: null }));
  views.push((shown) => drawLens(shown, [...head.cells].slice(1), cells));
}

function headingOf(content, scope) {
  const heading = create("th");
  heading.scope = scope;
  heading.append(content);
  return heading;
}

function makeLensCell(row, token) {
  const cell = create("td"), p = lens.probabilities.at(row, token, 0);
  cell.append(create("bdi", "", nameOf(lens.which.at(row, token, 0))));
  cell.setAttribute("aria-label", `${nameOf(lens.which.at(row, token, 0))}, ${percent(p)}`);
  setTint(cell, Math.sqrt(p));
  cell.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && point({ lens: row, token }));
  cell.addEventListener("click", () => choose({ lens: row, token, key: null }));
  return cell;
}

function drawLens({ token, lens: row }, headings, cells) {
  const at = (row ?? model.n_layer) * n_seq + token;
  headings.forEach((heading, i) => heading.classList.toggle("current", i === token));
  cells.forEach((cell, i) => cell.classList.toggle("current", i === at));
  reachable(cells, (chosen.lens ?? model.n_layer) * n_seq + chosen.token);
  if (pointed.token === undefined) visibleWithin(element("lens").parentElement, headings[token]);
  const of = Array.from(lens.which.at(row ?? model.n_layer, token), (which, i) =>
    `${nameOf(which)} ${percent(lens.probabilities.at(row ?? model.n_layer, token, i))}`);
  const when = row === null || row === model.n_layer ? "at the end" : row === 0 ? "before the first block" : `after block ${row - 1}`;
  element("lens-readout").textContent = `After ${quoted(token)}, ${when}: ${of.join(", ")}`;
}

// the page as a whole

const themed = [() => colours.clear(), update]; // what to draw again when the colours change

function makeTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)"), button = element("theme");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const redraw = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    for (const draw of themed) draw();
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    redraw();
  });
  dark.addEventListener("change", redraw);
  redraw();
}

function makeFacts() {
  const facts = { tokens: n_seq, blocks: model.n_layer, heads: model.n_head, "numbers a token": model.n_embd, weights: model.n_weights };
  for (const [name, value] of Object.entries(facts)) {
    const group = create("div");
    group.append(create("dt", "", name), create("dd", "", number(value)));
    element("facts").append(group);
  }
  for (const place of document.querySelectorAll("[data-number]")) place.textContent = number(model[place.dataset.number]);
  element("footer-k").textContent = next.which.shape[1];
}

makeFacts();
makeLine();
makeText();
makeNext();
makeSettings();
makeFlow();
makeHeads();
makeMap();
makeLooks();
makeLens();
makeTheme();
addEventListener("resize", update);
