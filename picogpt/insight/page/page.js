// The page as a whole: its theme, its facts, and the start.

const themed = [() => colours.clear(), update]; // what to draw again when the colours change

function makeTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)"), button = element("theme");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const redraw = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    set(button, "aria-label", `Change to ${isDark() ? "light" : "dark"} colours`);
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
  const { n_layer, n_head, n_embd, n_weights } = model;
  const facts = { tokens: n_seq, blocks: n_layer, heads: n_head, "numbers a token": n_embd, weights: n_weights };
  for (const [name, value] of Object.entries(facts)) {
    const group = create("div");
    group.append(create("dt", "", name), create("dd", "", number(value)));
    element("facts").append(group);
  }
  for (const place of document.querySelectorAll("[data-number]")) {
    place.textContent = number(model[place.dataset.number]);
  }
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
