// What the layers of an architecture are: the heat map along the front, one architecture in full, and the table.

const QUANTITIES = [
  { id: "kind", name: "attention", classes: DATA.colours.kinds, of: (part) => part.kind, sign: (value) => DATA.kinds[value] },
  { id: "tokens", name: "patch tokens", of: (part) => part.tokens },
  { id: "reducer", name: "reducer before the layer", classes: DATA.colours.reducers, of: (part) => part.reducer || "none", sign: (value) => (value === "none" ? "" : value[0]) },
  { id: "heads", name: "heads", of: (part) => part.heads },
  { id: "mlp_ratio", name: "MLP ratio", of: (part) => part.mlp_ratio },
  { id: "macs_share", name: "share of MACs", of: (part) => part.macs_share, say: (value) => `${(100 * value).toFixed(1)} %` },
  { id: "latency_share", name: "share of latency", of: (part) => part.latency_share, say: (value) => `${(100 * value).toFixed(1)} %` },
];
const layersOf = (row) => row.rows.filter((part) => part.layer !== null);
const depth = Math.max(...FRONT.map((row) => layersOf(row).length));

function heatMap(host, quantity) {
  const width = Math.max(host.clientWidth, 300), isNarrow = width < 500, left = isNarrow ? 122 : 168, tall = Math.max(7, Math.min(22, 620 / FRONT.length));
  const cell = Math.min(110, (width - left - 8) / depth), top = 24, every = Math.ceil(18 / cell);
  const full = left + cell * depth + 8, height = top + tall * FRONT.length + 6;
  const svg = shape("svg", { width: full, height, viewBox: `0 0 ${full} ${height}`, role: "grid", style: "max-width:none",
    "aria-label": `${quantity.name} of every layer; rows are the ${FRONT.length} architectures of the front by MACs, cheapest first; arrow keys move, Enter chooses` });
  const say = quantity.say || ((value) => String(value));
  const span = quantity.classes ? null : extent(FRONT.flatMap((row) => layersOf(row).map(quantity.of)));
  for (let i = 0; i < depth; i += every) svg.append(shape("text", { class: "soft", x: left + cell * (i + 0.5), y: 15, "text-anchor": "middle" }, cell > 55 ? `layer ${i}` : i));
  if (tall >= 13) svg.append(shape("text", { class: "soft", x: 2, y: 15 }, `digest, ${unit("macs").unit.split("/")[0]}`), isNarrow ? "" : shape("text", { class: "soft", x: left - 8, y: 15, "text-anchor": "end" }, unit(ACC).label));
  const cells = [];
  byCost.forEach((index, line) => {
    const row = FRONT[index], y = top + line * tall;
    const group = shape("g", { class: "row", role: "row", "data-digest": row.digest, onpointerleave: hideTip });
    if (tall >= 13) group.append(shape("text", { x: 2, y: y + tall * 0.72 }, `${row.digest.slice(0, 8)}  ${bare("macs", row.macs)}`),
      isNarrow ? "" : shape("text", { class: "soft", x: left - 8, y: y + tall * 0.72, "text-anchor": "end" }, named(ACC, row[ACC])));
    layersOf(row).forEach((part, i) => {
      const value = quantity.of(part);
      if (!known(value)) return;
      const fill = quantity.classes ? quantity.classes[value] : viridis(shareOf(value, span));
      const words = `${row.digest.slice(0, 8)}, layer ${i}\n${part.attention}\n${part.tokens} tokens${part.reducer ? ` after ${part.reducer}` : ""}, ${part.heads} heads, MLP ratio ${part.mlp_ratio}${part.ffn_conv ? ", convolution in the feed-forward" : ""}\n${quantity.name}: ${say(value)}`;
      const square = shape("rect", { class: "cell", role: "gridcell", tabindex: -1, "aria-label": words.replaceAll("\n", ", "), x: left + i * cell, y, width: Math.max(cell - 1.5, 1), height: tall - 1, fill: rgb(fill),
        onpointermove: (event) => showTip(event, words), onfocus: () => { if (square.matches(":focus-visible")) { const box = square.getBoundingClientRect(); showTip({ clientX: box.right, clientY: box.bottom }, words); } }, onblur: hideTip });
      cells.push({ square, digest: row.digest, line, layer: i });
      group.append(square);
      const text = quantity.classes ? quantity.sign(value) : say(value);
      if (tall >= 13 && text.length * 7 < cell) group.append(shape("text", { x: left + (i + 0.5) * cell, y: y + tall * 0.72, "text-anchor": "middle", style: `fill:${inkOn(fill)};pointer-events:none` }, text));
    });
    group.append(shape("rect", { class: "frame", x: 0.5, y: y - 0.5, width: full - 2, height: tall, style: "pointer-events:none" }));
    svg.append(group);
  });
  if (cells.length) cells[0].square.setAttribute("tabindex", 0);
  svg.addEventListener("keydown", (event) => walkCells(event, cells));
  host.replaceChildren(svg);
  const hasShares = FRONT.some((row) => layersOf(row).some((part) => known(quantity.of(part))));
  const names = span ? `from ${say(span[0])} (dark) to ${say(span[1])} (bright)` : "";
  $("layers-note").replaceChildren(...(quantity.classes ? Object.entries(quantity.classes).map(([name, fill]) =>
    node("span", { class: "legend" }, swatch(rgb(fill)), `${quantity.sign(name)} ${name}`)) : [hasShares ? `${quantity.name}: ${names}. ` : "Not measured in this run. "]),
  `Rows: digest, ${title("macs")}${host.clientWidth < 500 ? "" : ", top-1"}; cheapest first. Columns: layers, input to output; no cell, no layer.`);
}
// Arrow keys go from cell to cell, Home and End to the ends of a row; Enter selects the architecture.
function walkCells(event, cells) {
  const at = cells.find(({ square }) => square === event.target);
  if (!at) return;
  const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], Home: [0, -depth], End: [0, depth] }[event.key] || [0, 0];
  if (event.key === "Enter" || event.key === " ") choose(at.digest);
  else if (down || right) {
    const row = cells.filter(({ line }) => line === at.line + down), wanted = Math.max(at.layer + right, 0);
    if (row.length) focusCell(cells, row.findLast(({ layer }) => layer <= wanted) || row[0]);
  } else return;
  event.preventDefault();
}
function focusCell(cells, { square }) {
  for (const one of cells) if (one.square.getAttribute("tabindex") === "0") one.square.setAttribute("tabindex", -1);
  square.setAttribute("tabindex", 0);
  square.focus();
}
const swatch = (colour) => shape("svg", { width: 12, height: 12, "aria-hidden": "true" }, shape("rect", { width: 12, height: 12, rx: 2, fill: colour }));

function layerSwitch(host, onChange) {
  QUANTITIES.forEach((quantity, i) => {
    const radio = node("input", { type: "radio", name: "quantity", value: quantity.id, checked: i === 0, onchange: () => onChange(quantity) });
    host.append(node("label", {}, radio, quantity.name));
  });
}

function shareBar(share, kind = "") {
  if (!known(share)) return node("td", {}, "–");
  const fill = node("i");
  fill.style.width = `${(100 * share).toFixed(1)}%`;
  return node("td", {}, node("span", { class: `share ${kind}`, "aria-hidden": "true" }, fill), `${(100 * share).toFixed(1)} %`);
}

function facts(pairs) {
  return node("dl", {}, ...pairs.flatMap(([words, value]) => [node("dt", {}, words), node("dd", {}, value)]));
}
function valuesOf(row) {
  return facts([...ACCURACIES.map((metric) => [unit(metric).label, withInterval(metric, row)]), ["MACs", `${named("macs", row.macs, 1)} = ${flops(row.macs)}`],
    ["parameters", `${row.params.toLocaleString("en")}`], ...COSTS.slice(2).map((metric) => [unit(metric).label, withInterval(metric, row) + doubtWords(metric, row)])]);
}

function doubtWords(metric, row) {
  const { noisy, ties } = doubtsOf(row, metric), names = ties.map((digest) => digest.slice(0, 8)).join(", ");
  return `${noisy ? "; noisy: not known within 2 %" : ""}${ties.length ? `; not told apart from ${ties.length > 4 ? `${ties.length} others of the front` : names}` : ""}`;
}

function frontDetail(host, row) {
  const special = Object.entries(DATA.picks).filter(([, digest]) => digest === row.digest).map(([name]) => name);
  const rows = row.rows.map((part) => {
    const isLayer = part.layer !== null;
    const kind = isLayer ? `${DATA.kinds[part.kind]} ${part.attention}` : "";
    const hidden = isLayer ? `${part.hidden}${part.rank ? ` (rank ${part.rank})` : ""}` : "";
    const tokens = isLayer ? `${part.tokens}${part.reducer ? ` ${DATA.fewer} ${part.reducer}` : ""}` : "";
    return node("tr", {}, node("td", { class: "left" }, part.part), node("td", { class: "left" }, tokens), node("td", { class: "left short" }, kind),
      ...[isLayer ? part.heads : "", isLayer ? part.mlp_ratio : "", hidden].map((value) => node("td", {}, String(value))), shareBar(part.macs_share), shareBar(part.latency_share, "second"));
  });
  const heads = [["part", "left"], ["tokens", "left"], ["attention", "left"], ["heads"], ["MLP"], ["hidden"], ["of MACs"], ["of latency"]];
  const reproduce = DATA.command ? command("run again", DATA.command) : null;
  host.replaceChildren(
    node("p", {}, node("code", { id: "selected" }, row.digest), `${known(row.number) ? ` · trial ${row.number}` : ""}${known(row.supernet) ? ` of supernet ${row.supernet}` : ""} · ${layersOf(row).length} layers, ${row.embed_dim} channels`,
      special.length ? ` · ${special.join(", ")}` : ""), valuesOf(row),
    node("div", { class: "scroll apart" }, table(heads, rows)), command("export", row.export), command("show", row.show), reproduce || "");
}
function cloudDetail(host, row) {
  host.replaceChildren(node("p", {}, node("code", { id: "selected" }, row.digest), `${known(row.number) ? ` · trial ${row.number}` : ""}${known(row.supernet) ? ` of supernet ${row.supernet}` : ""} · ${row.embed_dim} channels · not on the front`), valuesOf(row),
    node("p", {}, node("span", { class: "mono" }, row.drawn), node("span", { class: "note" }, `  ${Object.entries(DATA.kinds).map(([name, glyph]) => `${glyph} ${name}`).join("  ")}  ${DATA.fewer} fewer tokens`)),
    node("p", { class: "note" }, `${DATA.finalists ? "It is no finalist, or another one is at least as good in everything" : "Another architecture is at least as good in everything"}, so there is no export command; the architecture itself is in trials.csv` + (known(row.supernet) ? " of its supernet's folder." : ".")));
}

function frontTable(host) {
  const metrics = [...ACCURACIES, ...COSTS], hasSupernets = DATA.supernets.length > 0;
  const heads = [["", "left"], ["digest", "left"], ...metrics.map((metric) => [title(metric)]), ...(hasSupernets ? [["supernet"]] : []), ["layers", "left"]];
  const cell = (metric, row) => {
    const pair = row[`${metric}_ci`], { noisy, ties } = doubtsOf(row, metric);
    return node("td", {}, `${bare(metric, row[metric], 1)}${pair ? ` [${bare(metric, pair[0], 1)}, ${bare(metric, pair[1], 1)}]` : ""}`,
      noisy ? node("abbr", { title: "not known within 2 %" }, " ~") : "", ties.length ? node("abbr", { title: `not told apart from ${ties.map((digest) => digest.slice(0, 8)).join(", ")}` }, ` =${ties.length}`) : "");
  };
  const rows = byCost.map((index) => {
    const row = FRONT[index], stars = Object.entries(DATA.picks).filter(([, digest]) => digest === row.digest).map(([name]) => name).join(", ");
    const radio = node("input", { type: "radio", name: "pick", value: row.digest, "aria-label": describe(row).replaceAll("\n", ", ") });
    return node("tr", { "data-digest": row.digest }, node("td", { class: "left" }, radio),
      node("td", { class: "left mono" }, `${row.digest.slice(0, 8)} ${stars}`), ...metrics.map((metric) => cell(metric, row)),
      ...(hasSupernets ? [node("td", {}, known(row.supernet) ? String(row.supernet) : "–")] : []), node("td", { class: "left mono" }, row.drawn));
  });
  host.replaceChildren(table(heads, rows));
}
