// The text, three times: to choose from, coloured by surprise, and coloured by attention.

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
      set(item, "aria-selected", i === shown.token);
      set(item, "aria-label", describe(i, shown));
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

function chance(i) {
  if (tokens[i].bits === null) return "the first: nothing is expected there";
  return `probability ${percent(2 ** -tokens[i].bits)}`;
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
  const describe = (i) => `token ${i}, ${tokens[i].name}, ${chance(i)}`;
  const items = makeTokens(element("text"), "The text, coloured by surprise", describe);
  items.forEach((item, i) => setTint(item, (tokens[i].bits ?? 0) / 12));
  views.push(({ token }) => {
    const { id, bits } = tokens[token];
    const surprise = bits === null ? "" : `, surprise ${bits.toFixed(1)} bits`;
    const facts = ` is token ${token} of ${n_seq}, number ${id} of the list; ${chance(token)}${surprise}`;
    element("token-facts").replaceChildren(create("b", "", quoted(token)), facts);
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
  const item = create("li"), name = create("bdi", "name"), value = create("span", "value");
  const track = create("span", "track"), fill = create("i", "fill"), ghost = create("i", "ghost");
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
  const last = tokens.slice(Math.max(token - 5, 0), token + 1).map(({ text, name }) => text || name).join("");
  return `“${token > 5 ? "… " : ""}${last.trim() === "" ? last : last.trimStart()}”`.replaceAll("\n", "↵");
}

function restOf(now, token) {
  const listed = now.probabilities.slice(0, N_BARS).reduce((sum, p) => sum + p, 0);
  const more = `all others together: ${percent(Math.max(1 - listed, 0))}`;
  if (token + 1 === n_seq) return more;
  const at = Array.from(next.which.at(token)).findIndex((which) => data.ids[which] === tokens[token + 1].id);
  const place = at < 0 ? "far below these" : `place ${at + 1}, ${percent(now.probabilities[at])}`;
  return `${more}. The text goes on with ${quoted(token + 1)}: ${place}`;
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
