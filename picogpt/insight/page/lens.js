// The logit lens: the likeliest next token after each block.

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
  element("lens-readout").textContent = `After ${quoted(token)}, ${lensAt(row ?? model.n_layer, token)}`;
}

function lensAt(row, token) {
  const when = row === model.n_layer ? "at the end" : row === 0 ? "before the first block" : `after block ${row - 1}`;
  const share = (i) => percent(lens.probabilities.at(row, token, i));
  return `${when}: ${Array.from(lens.which.at(row, token), (which, i) => `“${nameOf(which)}” ${share(i)}`).join(", ")}`;
}
