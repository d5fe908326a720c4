// What the page shows. `chosen` is what was clicked or reached with the keyboard, `pointed` what the pointer is over;
// together they are what is shown. Each view is a function of this that brings one part of the page up to date.

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
  Object.entries(data.strips).map(([name, { values, largest }]) => {
    return [name, { values: unpack(values), largest: unpack(largest) }];
  }),
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
  if (p === 0) return "0%";
  if (p < 0.001) return "<0.1%";
  return `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)}%`;
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

// The head to begin with: one that looks firmly at many tokens, each from a later one. The first token does not count.
function sharpest() {
  let best = { layer: 0, head: 0, sum: 0 };
  for (let layer = 0; layer < model.n_layer; layer++) {
    for (let head = 0; head < model.n_head; head++) {
      const sum = tokens.reduce((sum, _, j) => sum + (j > 0 ? firmest(layer, head, j) : 0), 0);
      if (sum > best.sum) best = { layer, head, sum };
    }
  }
  return { layer: best.layer, head: best.head };
}

function firmest(layer, head, j) {
  let most = 0;
  for (let i = j + 1; i < n_seq; i++) most = Math.max(most, weight(layer, head, i, j));
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
    const sideways = { ArrowLeft: -1, ArrowRight: 1, Home: -at, End: items.length - 1 - at };
    const moves = { ...sideways, ArrowUp: -columns, ArrowDown: columns };
    if (at < 0 || !(event.key in moves)) return;
    event.preventDefault();
    const to = items[at + moves[event.key]];
    if (to === undefined) return;
    to.focus();
    onChoose(items.indexOf(to));
  });
}

function reachable(items, at) {
  items.forEach((item, i) => set(item, "tabindex", i === at ? 0 : -1));
}

// Set an attribute if it has changed, which takes much less time where most of many have not.
function set(item, name, value) {
  if (item.getAttribute(name) !== String(value)) item.setAttribute(name, value);
}

function visibleWithin(scroller, item) {
  const outer = scroller.getBoundingClientRect(), inner = item.getBoundingClientRect();
  if (inner.left < outer.left || inner.right > outer.right) {
    scroller.scrollLeft += (inner.left + inner.right - outer.left - outer.right) / 2;
  }
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
