// Scatter plots and the hypervolume curve. Each is drawn anew when its width changes.

const RADIUS = 5.5;
const CLICK_REACH = 9; // pixels from a grey dot
const byCost = FRONT.map((_, i) => i).sort((a, b) => FRONT[a].macs - FRONT[b].macs);

function describe(row) {
  const supernet = known(row.supernet) ? `supernet ${row.supernet} · ` : "", number = known(row.number) ? `trial ${row.number} · ` : "";
  const latencies = COSTS.slice(2).map((metric) => `${named(metric, row[metric])}${LATENCIES.length > 1 ? `, ${targetOf(metric).target}` : ""}${doubtsOf(row, metric).noisy ? " (noisy)" : ""}`);
  return `${supernet}${number}${row.digest.slice(0, 8)}\n${ACCURACIES.map((metric) => `${ACCURACIES.length > 1 ? `${unit(metric).label} ` : ""}${named(metric, row[metric])}`).join(" · ")} · ${named("macs", row.macs)}\n` +
    `${named("params", row.params)} · ${latencies.join("\n")}\n${row.drawn}`;
}
const targetOf = (metric) => DATA.targets.find((target) => target.metric === metric);

// The best at or below each cost: the corners of a two-dimensional front.
function staircase(rows, metric) {
  const corners = [];
  const sorted = rows.filter((row) => known(row[metric]) && known(row[ACC]))
    .sort((a, b) => a[metric] - b[metric] || (DATA.up.is_more ? b[ACC] - a[ACC] : a[ACC] - b[ACC]));
  for (const row of sorted) if (!corners.length || isBetter(row[ACC], corners.at(-1)[ACC])) corners.push(row);
  return corners;
}
function stairs(rows, metric, x, y, right) {
  const corners = staircase(rows, metric);
  let path = "";
  corners.forEach((row, i) => { path += i ? `H${x(row[metric])}V${y(row[ACC])}` : `M${x(row[metric])},${y(row[ACC])}`; });
  return corners.length ? `${path}H${right}` : "";
}

function scatter(host, metric, colour, view) {
  host.replaceChildren();
  const width = Math.max(host.clientWidth, 280), height = Math.max(300, Math.min(430, width * 0.72));
  if (!isMeasured(metric)) {
    host.append(node("p", { class: "note" }, `No ${unit(metric).label} was measured in this run.`));
    return null;
  }
  const hasColour = isMeasured(colour) && FRONT.some((row) => known(row[colour]));
  const box = [52, 46, width - 14, height - 46];
  const others = view.zoom ? [] : [DATA.cloud, columnsOf(DATA.baselines), columnsOf(DATA.plain.points), ...(view.alone ? [retrainedColumns(metric)] : [])];
  const rows = FRONT.filter((row) => known(row[metric]) && known(row[ACC]));
  const spans = (name) => rows.flatMap((row) => (view.bars && row[`${name}_ci`]) || [row[name]]);
  const xs = extent([...spans(metric), ...others.flatMap((columns) => columns[metric] || [])]);
  const ys = extent([...spans(ACC), ...others.flatMap((columns) => columns[ACC])]);
  const isLog = view.log && xs[0] > 0;
  const xRange = widened(xs, 0.04, isLog), yRange = widened(ys, 0.04);
  const x = scale(xRange, [box[0], box[2]], isLog), y = scale(yRange, [box[3], box[1]]);
  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group",
    "aria-label": `${unit(ACC).label} against ${title(metric)}: ${rows.length} architectures on the front; arrow keys select` });
  const { factor } = axisOf(metric);
  const shown = xRange.map((value) => value / factor);
  axes(svg, box,
    { to: (value) => x(value * factor), ticks: ticks(shown, Math.max(3, width / 110), isLog), say: short, name: axisTitle(metric) },
    { to: y, ticks: ticks(yRange, 6), say: short, name: title(ACC) });
  const canvas = node("canvas", { "aria-hidden": "true" });
  const dots = [], paint = () => paintCloud(canvas, dots, width, height, metric, x, y, box);
  paint();
  const clip = `clip-${metric}`;
  svg.append(shape("clipPath", { id: clip }, shape("rect", { x: box[0], y: box[1] - 6, width: box[2] - box[0], height: box[3] - box[1] + 6 })));
  const inside = shape("g", { "clip-path": `url(#${clip})` });
  svg.append(inside);
  if (DATA.random && (metric === "macs" || isMeasured(metric))) inside.append(shape("path", { class: "random", d: stairs(DATA.random.points, metric, x, y, box[2]) }));
  plainMarks(inside, metric, x, y, box[2]);
  inside.append(shape("path", { class: "stairs", d: stairs(FRONT, metric, x, y, box[2]) }));
  if (view.bars) for (const row of rows) inside.append(...intervals(row, metric, x, y, "interval"));
  const shades = hasColour ? extent(FRONT.map((row) => row[colour])) : null;
  const isLogColour = view.log && hasColour && shades[0] > 0;
  if (hasColour) colourBar(svg, colour, shades, box[2], width, isLogColour);
  const order = [...byCost].sort((a, b) => FRONT[a][metric] - FRONT[b][metric]);
  for (const i of order) {
    const row = FRONT[i];
    if (!known(row[metric])) continue;
    inside.append(shape("circle", { class: doubtsOf(row, metric).noisy ? "point noisy" : "point", "data-digest": row.digest, "data-index": i, r: RADIUS, role: "button",
      cx: x(row[metric]), cy: y(row[ACC]), tabindex: -1, "aria-label": describe(row).replaceAll("\n", ", "),
      fill: hasColour && known(row[colour]) ? rgb(viridis(shareOf(row[colour], shades, isLogColour))) : css("--accent") }));
  }
  const label = labeller(svg, box, [...FRONT, ...DATA.baselines].filter((row) => known(row[metric]) && known(row[ACC])).map((row) => [x(row[metric]), y(row[ACC])]));
  baselineMarks(svg, metric, x, y, box, label);
  if (view.alone) retrainedMarks(svg, metric, x, y, box, label);
  const limit = shape("line", { class: "limit", y1: box[1], y2: box[3], visibility: "hidden" });
  const cross = shape("g", {}), ties = shape("g", {}), ring = shape("circle", { class: "ring", r: RADIUS + 4, visibility: "hidden" });
  svg.append(limit, ties, cross, ring);
  host.append(node("div", { class: "plot" }, canvas, svg));
  listen(svg, dots, order);
  return { metric, svg, paint, place(row) {
    cross.replaceChildren();
    ties.replaceChildren();
    const isThere = row && known(row[metric]) && x(row[metric]) >= box[0] - 1 && y(row[ACC]) <= box[3] + 1;
    ring.setAttribute("visibility", isThere ? "visible" : "hidden");
    if (!isThere) return;
    ring.setAttribute("cx", x(row[metric])); ring.setAttribute("cy", y(row[ACC]));
    if (view.bars) cross.append(...intervals(row, metric, x, y, "selected-interval"));
    const tied = new Set(doubtsOf(row, metric).ties);
    for (const other of rows) if (tied.has(other.digest)) ties.append(shape("circle", { class: "tie", r: RADIUS + 4, cx: x(other[metric]), cy: y(other[ACC]) }));
  }, bound(value) {
    const isThere = known(value) && x(value) >= box[0] && x(value) <= box[2];
    limit.setAttribute("visibility", isThere ? "visible" : "hidden");
    if (isThere) { limit.setAttribute("x1", x(value)); limit.setAttribute("x2", x(value)); }
  } };
}
const columnsOf = (rows) => Object.fromEntries([ACC, ...COSTS].map((name) => [name, rows.map((row) => row[name])]));

function intervals(row, metric, x, y, kind) {
  const marks = [], [sideways, upright] = [row[`${metric}_ci`], row[`${ACC}_ci`]];
  if (upright) marks.push(shape("line", { class: kind, "data-digest": row.digest, x1: x(row[metric]), x2: x(row[metric]), y1: y(upright[0]), y2: y(upright[1]) }));
  if (sideways) marks.push(shape("line", { class: kind, "data-digest": row.digest, x1: x(sideways[0]), x2: x(sideways[1]), y1: y(row[ACC]), y2: y(row[ACC]) }));
  return marks;
}

// Thousands of grey dots on one canvas; `dots` then says where they are, for the pointer.
function paintCloud(canvas, dots, width, height, metric, x, y, [left, top, right, bottom]) {
  const pen = penOf(canvas, width, height);
  dots.length = 0;
  pen.fillStyle = css("--cloud");
  pen.globalAlpha = DATA.cloud.digest.length > 1500 ? 0.35 : 0.7;
  (DATA.cloud[metric] || []).forEach((value, i) => {
    const top1 = DATA.cloud[ACC][i];
    if (!known(value) || !known(top1) || !isCloudWithin(i)) return;
    const [across, up] = [x(value), y(top1)];
    if (across < left || across > right || up < top || up > bottom) return;
    pen.beginPath();
    pen.arc(across, up, 2.6, 0, 7);
    pen.fill();
    dots.push([across, up, i]);
  });
  canvas.dataset.dots = dots.length;
}

function colourBar(svg, metric, [low, high], right, width, isLog) {
  const long = Math.min(110, width * 0.22), left = right - long, id = `shade-${metric}-${width}`;
  const stops = VIRIDIS.map((channels, i) => shape("stop", { offset: i / (VIRIDIS.length - 1), "stop-color": rgb(channels) }));
  svg.append(shape("linearGradient", { id }, ...stops),
    shape("rect", { x: left, y: 22, width: long, height: 8, fill: `url(#${id})` }),
    shape("text", { x: right, y: 14, "text-anchor": "end", class: "soft" }, `colour: ${width < 450 ? unit(metric).label : title(metric)}${isLog ? ", log." : ""}`),
    shape("text", { x: left - 5, y: 30, "text-anchor": "end", class: "soft" }, bare(metric, low)),
    shape("text", { x: right, y: 42, "text-anchor": "end", class: "soft" }, bare(metric, high)));
}

// The plain ViTs: a line of their own with a square at each.
function plainMarks(group, metric, x, y, right) {
  const rows = DATA.plain.points.filter((row) => known(row[metric]) && known(row[ACC]));
  if (rows.length) group.append(shape("path", { class: "plain-stairs", d: stairs(rows, metric, x, y, right) }));
  for (const row of rows) group.append(shape("path", { class: "plain-mark", d: square(x(row[metric]), y(row[ACC])) }));
}
const square = (x, y, r = 4) => `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}Z`;

// Crosses with names.
function baselineMarks(svg, metric, x, y, [left, top, right, bottom], label) {
  for (const baseline of DATA.baselines) {
    if (!known(baseline[metric])) continue;
    const [at, up] = [x(baseline[metric]), y(baseline[ACC])];
    if (at < left || at > right || up < top || up > bottom) continue;
    svg.append(shape("path", { class: "mark", d: `M${at - 5},${up - 5}l10,10m0,-10l-10,10` }));
    label(at, up, baseline.name, "marked");
  }
}

// Pointer and keyboard of a scatter plot. One stop for Tab; arrow keys go along the front.
function listen(svg, dots, order) {
  const place = (event) => { const box = svg.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  const grey = (event) => {
    const [left, top] = place(event);
    let best = null, least = CLICK_REACH ** 2;
    for (const [x, y, i] of dots) { const far = (x - left) ** 2 + (y - top) ** 2; if (far < least) [best, least] = [i, far]; }
    return best;
  };
  svg.addEventListener("pointermove", (event) => {
    const point = event.target.closest(".point"), alone = event.target.closest(".alone");
    const near = point || alone ? null : grey(event);
    if (point) showTip(event, describe(FRONT[point.dataset.index]));
    else if (alone) showTip(event, describeRetrained(DATA.retrained[alone.dataset.alone]));
    else if (near !== null) showTip(event, `${describe(CLOUD[near])}\nnot on the front`);
    else hideTip();
  });
  svg.addEventListener("pointerleave", hideTip);
  svg.addEventListener("click", (event) => {
    const near = event.target.closest("[data-digest]") ? null : grey(event);
    if (near !== null) choose(CLOUD[near].digest);
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    const here = event.target.closest(".point");
    if (!here || (!step && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    const walk = order.filter((i) => i === +here.dataset.index || isWithin(FRONT[i]));
    const at = walk.indexOf(+here.dataset.index) + (step || 0);
    const next = walk[Math.min(Math.max(at, 0), walk.length - 1)];
    choose(FRONT[next].digest);
    svg.querySelector(`.point[data-index="${next}"]`).focus();
  });
}

// Lines over a quantity that goes on; of `series` each has a name, points [x, y], a colour, and may be dashed. `isStep`: values hold until the next.
function lineChart(host, words, xName, yName, series, isStep = false) {
  const width = Math.max(host.clientWidth, 280), height = 330, box = [58, 34, width - 14, height - 46], points = series.flatMap((one) => one.points);
  const xRange = [0, Math.max(...points.map(([at]) => at), 1)], yRange = widened(extent(points.map(([, value]) => value)), 0.05);
  if (isStep) [yRange[0], yRange[1]] = [0, yRange[1] || 1];
  const x = scale(xRange, [box[0], box[2]]), y = scale(yRange, [box[3], box[1]]);
  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words });
  axes(svg, box, { to: x, ticks: ticks(xRange, Math.max(3, width / 110)), say: short, name: xName }, { to: y, ticks: ticks(yRange, 6), say: short, name: yName });
  for (const one of series) svg.append(shape("path", { class: one.isDashed ? "random" : "curve", style: `stroke:var(${one.colour})`,
    d: one.points.map(([at, value], i) => `${!i ? `M${x(at)},` : isStep ? `H${x(at)}V` : `L${x(at)},`}${y(value)}`).join("") }));
  host.replaceChildren(series.length > 1 ? node("p", { class: "legend" }, ...series.map((one) => node("span", {}, swatch(`var(${one.colour})`), one.name))) : "", svg);
}
function curve(host) {
  if (!DATA.curve.length) { host.replaceChildren(node("p", { class: "note" }, "This run keeps no trials of its own.")); return; }
  const { random } = DATA, [paid, value] = DATA.curve.at(-1);
  lineChart(host, `Hypervolume ${value.toFixed(4)} after ${paid} trials`, "trials paid for", "hypervolume (share of the box)",
    [{ name: "this search", colour: "--accent", points: DATA.curve }, ...(random ? [{ name: `random search (${random.run})`, colour: "--mark", points: random.curve, isDashed: true }] : [])], true);
}
const COLOURS = ["--accent", "--mark", "--alone", "--plain", "--soft"];
function losses(host) {
  if (!DATA.losses.length) { host.replaceChildren(node("p", { class: "note" }, "This run keeps no log of a training.")); return; }
  const series = DATA.losses.map(([name, points], i) => ({ name, points, colour: COLOURS[i % COLOURS.length] }));
  lineChart(host, `Training loss; at the end ${series.map(({ name, points }) => `${name} ${points.at(-1)[1].toFixed(2)}`).join(", ")}`, "steps", "loss (nats)", series);
}
