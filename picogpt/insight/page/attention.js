// Attention: all heads as small maps, one as a large map, and the text coloured by where a token looks.

const THUMB = 48; // pixels of a small map: more tokens share them

function makeHeads() {
  const grid = element("heads");
  grid.style.setProperty("--n-head", model.n_head);
  const items = [];
  const headings = Array.from({ length: model.n_head }, (_, head) => label("columnheader", head, "head"));
  grid.append(makeHeadsRow("", headings));
  for (let layer = 0; layer < model.n_layer; layer++) {
    for (let head = 0; head < model.n_head; head++) items.push(makeHead(layer, head));
    grid.append(makeHeadsRow(layer, items.slice(-model.n_head)));
  }
  grid.addEventListener("pointerleave", () => point({}));
  arrows(grid, items, model.n_head, (at) => choose({ layer: Math.floor(at / model.n_head), head: at % model.n_head }));
  views.push(({ layer, head }) => {
    items.forEach((item, at) => set(item, "aria-selected", at === layer * model.n_head + head));
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
  const shares = most.map((j) => `${quoted(j)} ${percent(weight(layer, head, token, j))}`);
  return `${quoted(token)} looks at ${shares.join(", ")}`;
}

function makeLooks() {
  const share = (i, { token, layer, head }) => percent(weight(layer, head, token, i));
  const describe = (i, shown) => `token ${i}, ${tokens[i].name}, ${share(i, shown)}`;
  const items = makeTokens(element("looks"), "The text, coloured by attention", describe);
  views.push(({ token, layer, head }) => {
    items.forEach((item, i) => {
      setTint(item, Math.sqrt(weight(layer, head, token, i)));
      item.classList.toggle("later", i > token);
    });
  });
}
