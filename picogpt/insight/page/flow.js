// How the numbers flow through a block: for each step, its shape and the first numbers of the chosen token.

function makeFlow() {
  const steps = [...document.querySelectorAll("[data-strip]")].map(makeStep);
  if (model.own_head) {
    element("flow-head").textContent = "lm_head";
    element("flow-list").textContent = "a second list, used for this alone";
  }
  element("layer").max = model.n_layer - 1;
  element("layer").addEventListener("input", () => choose({ layer: +element("layer").value }));
  views.push((shown) => {
    const said = steps.map((step) => drawStep(step, shown)); // first: reading a width after a text has changed takes long
    steps.forEach((step, i) => tellStep(step, said[i], shown));
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

function drawStep({ strip, canvas }, shown) {
  const { values, text } = numbersOf(strip, shown);
  drawNumbers(canvas, values, strip === "attn.pattern" ? "looks-strong" : "positive");
  return text;
}

function tellStep({ strip, canvas, note }, text, { token }) {
  note.textContent = text;
  set(canvas, "aria-label", `${strip} of ${quoted(token)}: ${text}`);
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
  const index = { 2: [token], 3: [layer, token], 4: [layer, head, token] }[strips[strip].values.shape.length];
  const largest = strips[strip].largest.at(...index);
  const values = Array.from(strips[strip].values.at(...index), (value) => value / 127);
  const first = values.slice(0, 3).map((value) => (value * largest).toPrecision(2).replace("-", "−"));
  return { values, text: `${first.join(", ")}, …` };
}

function drawNumbers(canvas, values, above) {
  const { context, width } = fitted(canvas, 18);
  const positive = colour(above), negative = colour("negative"), empty = colour("line");
  const cell = width / values.length, gap = cell > 5 ? 1 : 0;
  values.forEach((value, i) => {
    context.fillStyle = rgba(empty, 0.35);
    context.fillRect(i * cell, 0, cell - gap, 18);
    context.fillStyle = rgba(value < 0 ? negative : positive, Math.abs(value));
    context.fillRect(i * cell, 0, cell - gap, 18);
  });
}
