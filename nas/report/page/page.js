// The page: what is selected, what the budget allows, and who has to hear of it.

const view = { log: false, zoom: false, bars: true, alone: true, target: COSTS[2], quantity: QUANTITIES[0] };
const MANY_BARS = 60; // points whose intervals would hide one another; the switch shows them
let plots = [], lines = null, chosen = null;
const ROWS = new Map([...CLOUD, ...FRONT].map((row) => [row.digest, row]));
const rowOf = (digest) => ROWS.get(digest);

// The best within a bound and the ranges. FRONT is in the order by which `pick top1` tells equal ones apart: the first counts.
function bestWithin(metric, limit) {
  const inside = FRONT.filter((row) => known(row[metric]) && row[metric] <= limit && isWithin(row));
  return inside.reduce((best, row) => (best === null || isBetter(row[ACC], best[ACC]) ? row : best), null);
}

// The one selection of the page: whatever names a network chooses it, and every part shows it.
function choose(digest) {
  chosen = rowOf(digest);
  (known(chosen.export) ? frontDetail : cloudDetail)($("detail"), chosen);
  highlight();
  fitTables();
  const host = $("front-table"), row = host.querySelector("tr.selected");
  if (row && (row.offsetTop < host.scrollTop || row.offsetTop + row.offsetHeight > host.scrollTop + host.clientHeight)) host.scrollTop = row.offsetTop - host.clientHeight / 2;
}
function highlight() {
  for (const marked of document.querySelectorAll(".selected")) marked.classList.remove("selected");
  for (const one of document.querySelectorAll(`[data-digest="${chosen.digest}"]`)) one.classList.add("selected");
  lines.place(chosen);
  for (const radio of document.querySelectorAll("input[name=pick]")) radio.checked = radio.value === chosen.digest;
  for (const button of document.querySelectorAll("button[data-digest]")) button.setAttribute("aria-pressed", String(button.dataset.digest === chosen.digest));
  for (const plot of plots) {
    plot.place(chosen);
    const stop = plot.svg.querySelector(`.point[data-digest="${chosen.digest}"]`) || plot.svg.querySelector(".point");
    for (const point of plot.svg.querySelectorAll('.point[tabindex="0"]')) point.setAttribute("tabindex", -1);
    if (stop) stop.setAttribute("tabindex", 0);
  }
}

// The slider holds a share of the front's range; the number beside it is the budget, in the unit that is shown.
const sliderRange = () => extent(FRONT.map((row) => row[$("metric").value]));
function fromSlider() {
  const [low, high] = sliderRange(), { factor } = unit($("metric").value);
  const value = low + (high - low) * ($("budget").value / $("budget").max);
  const rounded = +(value / factor).toPrecision(4);
  const edge = +$("budget").value === +$("budget").max ? high : low; // an edge rounded inwards would lose its own point
  const isEdge = [0, +$("budget").max].includes(+$("budget").value);
  $("limit").value = isEdge ? edge / factor : rounded;
  applyBudget();
}
function fromNumber() {
  const [low, high] = sliderRange(), value = $("limit").value === "" ? high : $("limit").value * unit($("metric").value).factor;
  $("budget").value = Math.round($("budget").max * shareOf(value, [low, high]));
  applyBudget();
}
function applyBudget(selects = true) {
  const metric = $("metric").value, { factor } = unit(metric);
  // A tiny slack undoes the division by the unit's factor, which may lose the last bit.
  const limit = $("limit").value === "" ? Infinity : $("limit").value * factor * (1 + 1e-12);
  const best = bestWithin(metric, limit), inside = FRONT.filter((row) => known(row[metric]) && row[metric] <= limit && isWithin(row));
  for (const plot of plots) plot.bound(plot.metric === metric && limit < Infinity ? limit : null);
  const within = new Set(inside.map((row) => row.digest));
  for (const one of document.querySelectorAll(".point, .interval, tbody tr[data-digest]")) one.classList.toggle("outside", !within.has(one.dataset.digest));
  const words = (limit < Infinity ? `at most ${$("limit").value} ${unit(metric).unit}` : "no budget") + (ranges.size ? ` and ${rangeWords()}` : "");
  $("budget").setAttribute("aria-valuetext", words);
  $("answer").dataset.digest = best ? best.digest : "";
  if (!best) {
    $("answer").textContent = `Nothing on the front has ${words}${ranges.size ? "" : `; the least is ${named(metric, sliderRange()[0], 1)}`}.`;
    $("answer-commands").replaceChildren();
    return;
  }
  $("answer").replaceChildren(node("strong", {}, best.digest.slice(0, 8)), ` is the best of ${inside.length} with ${words}: ${unit(ACC).label} ${named(ACC, best[ACC])}, ` +
    `${named("macs", best.macs)}, ${named("params", best.params)}, ${COSTS.slice(2).map((cost) => named(cost, best[cost])).join(", ")}.`);
  $("answer-commands").replaceChildren(command("export", best.export));
  if (selects) choose(best.digest);
}

// What is outside the ranges of the parallel coordinates is dimmed everywhere; grey dots outside them are not drawn.
function applyRanges() {
  const outside = new Set(FRONT.filter((row) => !isWithin(row)).map((row) => row.digest));
  for (const one of document.querySelectorAll(".point, .interval, .line, .row, #front-table tr")) one.classList.toggle("filtered", outside.has(one.dataset.digest));
  for (const plot of [...plots, lines]) plot.paint();
  const others = DATA.cloud.digest.length, kept = others - DATA.cloud.digest.filter((_, i) => !isCloudWithin(i)).length;
  $("ranges").textContent = ranges.size ? `${rangeWords()}: ${FRONT.length - outside.size} of ${FRONT.length} on the front, ${kept} of ${others} others` : "";
  $("no-ranges").disabled = !ranges.size;
  applyBudget(false);
}
function clearRanges() {
  if (!ranges.size) return;
  ranges.clear();
  lines.showRanges();
  applyRanges();
}

function draw() {
  for (const name of ["log", "zoom", "bars", "alone"]) view[name] = $(name).checked;
  const [left, right] = $("charts").children;
  plots = [scatter(left, "macs", view.target, view), scatter(right, view.target, "macs", view)].filter(Boolean);
  heatMap($("layers"), view.quantity);
  lines = parallel($("parallel"), applyRanges);
  curve($("curve"));
  losses($("losses"));
  if (chosen) applyBudget(false); else applyBudget();
  choose(chosen.digest);
  applyRanges();
}

const listed = (conditions) => `top-1: ${conditions.num_images} images of the ${conditions.split} split, ${conditions.precision}, weights ${conditions.supernet}. ` +
  `Latency: ${conditions.target} on ${conditions.device}, batch of ${conditions.latency_batch_size}, ` +
  `${conditions.latency_threads} thread${conditions.latency_threads === 1 ? "" : "s"}, ${conditions.latency_stage} stage, torch ${conditions.torch}.`;
const orders = () => DATA.targets.filter((target) => known(target.repeat_tau)).map((target) => ` Order of the latencies on ${target.target} repeats with tau ${target.repeat_tau.toFixed(2)}.`).join("");

function words() {
  const { counts, conditions, cloud, random } = DATA;
  const measured = FRONT.length + cloud.digest.length;
  $("name").textContent = DATA.run;
  $("summary").textContent = `${DATA.is_final ? "" : "The search has not ended; this is the front so far. "}Search space ${DATA.space}: ${FRONT.length} of ${measured} wholly measured architectures ` +
    `are on the front of ${DATA.objectives.map((name) => unit(name).label).join(", ")}; hypervolume ${DATA.hypervolume.toFixed(4)}.`;
  const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`, alone = DATA.retrained.filter((row) => !row.is_baseline), metrics = [...(DATA.own.includes(ACC) ? ["top1"] : []), ACC, ...COSTS.filter((metric) => metric !== "params" && isMeasured(metric))];
  const choices = ["top1", "knee"].map((name) => [name, rowOf(DATA.picks[name])]).filter(([name, row], i, all) => row && (!i || row !== all[0][1]));
  const cards = { data: [DATA.summary.data], time: [DATA.summary.time],
    best: [...choices.map(([name, row]) => node("span", { class: "block" }, `${name}: ${metrics.map((metric) => named(metric, row[metric])).join(", ")} `, chooser(row.digest))),
      ...alone.map((row) => node("span", { class: "block" }, `${row.name}, trained alone: ${spread(row, "test_top1")} % on the test split`))],
    verdict: [DATA.verdict ? node("strong", {}, `${sentence(DATA.verdict)} `) : "", sentence(DATA.chance)] };
  $("cards").replaceChildren(...Object.entries(cards).map(([name, parts]) => node("div", {}, node("dt", {}, name), node("dd", { id: `card-${name}` }, ...parts))));
  const dot = (style) => shape("svg", { width: 14, height: 14, "aria-hidden": "true" }, shape("circle", { cx: 7, cy: 7, r: 5, style }));
  const cross = () => shape("svg", { width: 14, height: 14, "aria-hidden": "true" }, shape("path", { class: "mark", d: "M2,2l10,10m0,-10l-10,10" }));
  const dashed = () => shape("svg", { width: 24, height: 14, "aria-hidden": "true" }, shape("path", { class: "random", d: "M0,7h24" }));
  $("legend").append(node("span", {}, dot(`fill:${rgb(viridis(0.5))};stroke:var(--ink)`), "Pareto front"), node("span", {}, dot("fill:var(--cloud)"), `${cloud.digest.length} not on it`),
    DATA.baselines.length ? node("span", {}, cross(), "known designs, by inherited weights") : "",
    DATA.plain.points.length ? node("span", {}, plainSign(), "plain ViTs of this space") : "",
    ...(FRONT.some((row) => LATENCIES.some((metric) => doubtsOf(row, metric).noisy)) ? [node("span", {}, dot("fill:none;stroke:var(--ink);stroke-dasharray:2.5 2"), "latency noisy: not known within 2 %")] : []),
    ...(FRONT.some((row) => LATENCIES.some((metric) => doubtsOf(row, metric).ties.length)) ? [node("span", {}, dot("fill:none;stroke:var(--mark);stroke-width:2;stroke-dasharray:3 3"), "latency not told apart from the selected one")] : []),
    ...(DATA.retrained.length ? retrainedLegend() : []), random ? node("span", {}, dashed(), `random search, ${random.num_trials} trials`) : "");
  const lost = [[counts.failed, "failed"], [counts.pruned, "stopped early, surely dominated"], [counts.repeated, "repeats, measured once"]].filter(([count]) => count);
  $("front-notes").hidden = !DATA.notes.length;
  $("front-notes").replaceChildren(...DATA.notes.map((note) => node("li", {}, note)));
  $("trade-note").textContent = `Front: ${listed(conditions.front)}${orders()}${differs ? ` Grey dots, crosses and diamonds off the front: latency of the ${conditions.cloud.latency_stage} stage, in few rounds beside other work, so a ratio is known to some percent and a dot may seem to lie before the front.` : ""}` +
    `${isMeasured("latency_ms") && unit("latency_ms").axis ? " Latency is drawn as the ratio to the largest architecture, timed in turn with each: other work on the machine changes milliseconds, and hardly a ratio. Milliseconds are ratios times one figure of the run." : ""} MACs and parameters: exact arithmetic.${lost.length ? ` Not drawn: ${lost.map(([count, name]) => `${count} ${name}`).join("; ")}.` : ""}` +
    `${DATA.errors.length ? ` Reasons: ${DATA.errors.map(([text, count]) => `${text} (${count})`).join("; ")}.` : ""}` +
    `${random ? ` Dashed: the front of ${random.run} at equal budget${differs ? "; its latency is of the search stage" : ""}.` : ""}` +
    `${DATA.retrained.length ? ` Diamonds: trained alone, ± standard deviation over seeds; the test split is another split than the front's, so its marks are hollow and stand ${ASIDE} pixels to the right of their cost.` : ""}` +
    `${DATA.supernets.length ? ` Points of ${count(new Set(FRONT.map((row) => row.supernet)).size, "supernet")}; each was measured with the weights of its own.` : ""}`;
  const box = Object.entries(DATA.references).map(([name, value]) => `${unit(name).label} ${named(name, value)}`).join(", ");
  $("curve-note").textContent = `Share of the box between the ideal and the reference corner (${box}) that all trials so far dominate` +
    `${differs ? `; during the search, latency of the ${conditions.cloud.latency_stage} stage. The front as measured at the end: ${DATA.hypervolume.toFixed(4)}.` : "."}` +
    `${DATA.supernets.length ? ` Trials of all supernets that were searched, one search after the other.` : ""}` +
    `${random ? ` Random search: ${random.hypervolume.toFixed(4)} after ${random.num_trials} trials.` : ""}`;
  $("parallel-note").textContent = `One line an architecture, thin where it is not on the front, coloured by ${unit(ACC).label}; a click selects it. Drag along an axis to keep a range: what is outside fades on the whole page; a click on the axis or Escape clears it. ` +
    `With keys: Tab to a handle, left and right to the next, up and down to move it. Each axis runs from the lowest to the highest value that was measured.${LATENCIES.length > 1 ? ` ${DATA.targets.map(({ target }, i) => `Latency ${i + 1}: ${target}`).join("; ")}.` : ""}`;
  const isDoubted = FRONT.some((row) => LATENCIES.some((metric) => doubtsOf(row, metric).noisy || doubtsOf(row, metric).ties.length));
  $("table-note").textContent = `Arrow keys move the selection. FLOPs = 2 × MACs. Intervals are 95 %.${isDoubted ? " ~ noisy: not known within 2 %. =n: not told apart from n others of the front, whose intervals overlap." : ""}${orders()}`;
}

const plainSign = () => shape("svg", { width: 24, height: 14, "aria-hidden": "true" }, shape("path", { class: "plain-stairs", d: "M0,7h24" }), shape("path", { class: "plain-mark", d: square(12, 7) }));
function plainSection(section, host) {
  const { points, num_measured: measured, words: lines } = DATA.plain;
  section.hidden = !points.length;
  if (!points.length) return;
  const accuracies = ACCURACIES.filter((metric) => points.some((row) => known(row[metric])));
  const costs = COSTS.filter((metric) => points.some((row) => known(row[metric])));
  const sizes = [["embed_dim", "width"], ["depth", "layers"], ["num_heads", "heads"], ["mlp_ratio", "MLP ratio"], ...(points[0].stem ? [["stem", "stem"]] : [])];
  const heads = [["digest", "left"], ...[...accuracies, ...costs].map((metric) => [title(metric)]), ...sizes.map(([, name]) => [name]), ["", "left"]];
  const rows = points.map((row) => node("tr", {}, node("td", { class: "left" }, chooser(row.digest)), ...[...accuracies, ...costs].map((metric) => node("td", {}, known(row[metric]) ? bare(metric, row[metric], 1) : "–")),
    ...sizes.map(([name]) => node("td", {}, String(row[name]))), node("td", { class: "left" }, row.is_on_front ? "on the front" : "")));
  host.append(node("div", { class: "scroll" }, table(heads, rows)),
    node("p", { class: "note" }, `${count(measured, "plain ViT")} measured: no token reduction, dynamic attention, real heads, full feed-forwards, all layers alike. Shown: those that no other plain one dominates. ` +
      `${lines.map((line) => `${line[0].toUpperCase()}${line.slice(1)}.`).join(" ")}${differs ? " Latency off the front is of the search stage." : ""}`));
}

function conditionTables([left, right]) {
  const { front, cloud } = DATA.conditions;
  const rows = Object.keys(front).map((name) => node("tr", {}, ...[name.replaceAll("_", " "), front[name], cloud ? cloud[name] : "–"].map((text) => node("td", { class: "left wrap" }, String(text)))));
  left.append(node("div", { class: "scroll" }, table([["condition", "left"], ["front", "left"], ["other points", "left"]], rows)));
  right.append(facts(DATA.facts));
  $("config").append(facts(Object.entries(DATA.config).map(([name, value]) => [name, JSON.stringify(value)])));
}

function themed(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = name === "dark" ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Switch to ${name === "dark" ? "light" : "dark"} colours`);
}

const dark = matchMedia("(prefers-color-scheme: dark)");
themed(dark.matches ? "dark" : "light");
dark.addEventListener("change", () => { themed(dark.matches ? "dark" : "light"); draw(); });
$("theme").addEventListener("click", () => { themed(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); draw(); });
$("charts").append(node("div", { id: "by-macs" }), node("div", { id: "by-latency" }));
for (const name of ["macs", ...COSTS.slice(2), "params"]) if (isMeasured(name) && sliderRangeOf(name)) $("metric").append(node("option", { value: name }, LATENCIES.length > 1 && LATENCIES.includes(name) ? title(name) : unit(name).unit));
for (const { metric, target } of DATA.targets) $("target").append(node("option", { value: metric }, target));
$("target-switch").hidden = DATA.targets.length < 2;
$("target").addEventListener("change", () => { view.target = $("target").value; draw(); });
$("alone-switch").hidden = !DATA.retrained.length;
function sliderRangeOf(name) { return extent(FRONT.map((row) => row[name])); }
for (const [name, digest] of Object.entries(DATA.picks)) $("picks").append(node("button", { type: "button", "data-digest": digest }, name));
words();
frontTable($("front-table"));
layerSwitch($("layer-switch"), (quantity) => { view.quantity = quantity; heatMap($("layers"), quantity); highlight(); applyRanges(); });
plainSection($("plain-section"), $("plain"));
retrainedSection($("alone-table"));
trustSection($("trust"));
noiseSection($("noise"));
supernetSection($("supernets-section"), $("supernets"));
conditionTables([node("div"), node("div")].map((one) => { $("conditions").append(one); return one; }));
const macs = extent(FRONT.map((row) => row.macs));
$("log").checked = macs !== null && macs[0] > 0 && macs[1] / macs[0] > 8;
$("bars").checked = FRONT.length <= MANY_BARS;
for (const name of ["log", "zoom", "bars", "alone"]) $(name).addEventListener("change", draw);
$("no-ranges").addEventListener("click", clearRanges);
document.addEventListener("click", (event) => { const one = event.target.closest("[data-digest]"); if (one && rowOf(one.dataset.digest)) choose(one.dataset.digest); });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") clearRanges(); });
$("metric").addEventListener("change", () => { $("budget").value = $("budget").max; fromSlider(); });
$("budget").addEventListener("input", fromSlider);
$("limit").addEventListener("input", fromNumber);
$("no-limit").addEventListener("click", () => { $("limit").value = ""; fromNumber(); });
$("budget").value = $("budget").max;
draw();
choose(DATA.picks.knee);
let lastWidth = innerWidth;
addEventListener("resize", () => { if (innerWidth !== lastWidth) { lastWidth = innerWidth; draw(); } });
document.documentElement.dataset.drawn = "true";
