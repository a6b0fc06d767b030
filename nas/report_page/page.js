// The page: what is selected, what the budget allows, and who has to hear of it.

const view = { log: false, zoom: false, bars: true, quantity: QUANTITIES[0] };
const MANY_BARS = 60; // points whose intervals would hide one another; the switch shows them
let plots = [], chosen = null;

// The best top-1 within a bound. FRONT is in the order by which `pick top1` tells equal ones apart: the first counts.
function bestWithin(metric, limit) {
  const inside = FRONT.filter((row) => known(row[metric]) && row[metric] <= limit);
  return inside.reduce((best, row) => (best === null || row.top1 > best.top1 ? row : best), null);
}

function select(index) {
  chosen = FRONT[index];
  frontDetail($("detail"), chosen);
  highlight();
}
function selectCloud(i) {
  chosen = cloudRow(i);
  cloudDetail($("detail"), chosen);
  highlight();
}
function highlight() {
  for (const marked of document.querySelectorAll(".selected")) marked.classList.remove("selected");
  for (const one of document.querySelectorAll(`[data-digest="${chosen.digest}"]`)) one.classList.add("selected");
  const line = $("parallel").querySelector(".line.selected"), above = $("parallel").querySelector(".chosen");
  above.setAttribute("d", line ? line.getAttribute("d") : "");
  for (const radio of document.querySelectorAll("input[name=pick]")) radio.checked = radio.value === chosen.digest;
  for (const button of $("picks").querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.pick === chosen.digest));
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
function applyBudget() {
  const metric = $("metric").value, { factor } = unit(metric);
  // A tiny slack undoes the division by the unit's factor, which may lose the last bit.
  const limit = $("limit").value === "" ? Infinity : $("limit").value * factor * (1 + 1e-12);
  const best = bestWithin(metric, limit), inside = FRONT.filter((row) => known(row[metric]) && row[metric] <= limit);
  for (const plot of plots) plot.bound(plot.metric === metric && limit < Infinity ? limit : null);
  const within = new Set(inside.map((row) => row.digest));
  for (const one of document.querySelectorAll(".point, .interval, tbody tr[data-digest]")) one.classList.toggle("outside", !within.has(one.dataset.digest));
  const words = limit < Infinity ? `at most ${$("limit").value} ${unit(metric).unit}` : "no budget";
  $("budget").setAttribute("aria-valuetext", words);
  $("answer").dataset.digest = best ? best.digest : "";
  if (!best) {
    $("answer").textContent = `Nothing on the front has ${words}; the least is ${named(metric, sliderRange()[0], 1)}.`;
    $("answer-commands").replaceChildren();
    return;
  }
  $("answer").replaceChildren(node("strong", {}, best.digest.slice(0, 8)), ` is the best of ${inside.length} with ${words}: top-1 ${named("top1", best.top1)}, ` +
    `${named("macs", best.macs)}, ${named("params", best.params)}, ${named("latency_ms", best.latency_ms)}.`);
  $("answer-commands").replaceChildren(command("export", best.export));
  select(FRONT.indexOf(best));
}

function draw() {
  for (const name of ["log", "zoom", "bars"]) view[name] = $(name).checked;
  const [left, right] = $("charts").children;
  plots = [scatter(left, "macs", "latency_ms", view), scatter(right, "latency_ms", "macs", view)].filter(Boolean);
  heatMap($("layers"), view.quantity);
  parallel($("parallel"));
  curve($("curve"));
  const kept = chosen;
  applyBudget();
  if (kept) { chosen = kept; if (known(kept.export)) frontDetail($("detail"), kept); else cloudDetail($("detail"), kept); }
  highlight();
}

const listed = (conditions) => `top-1: ${conditions.num_images} images of the ${conditions.split} split, ${conditions.precision}, weights ${conditions.supernet}. ` +
  `Latency: ${conditions.target} on ${conditions.device}, batch of ${conditions.latency_batch_size}, ` +
  `${conditions.latency_threads} thread${conditions.latency_threads === 1 ? "" : "s"}, ${conditions.latency_stage} stage, torch ${conditions.torch}.`;

function words() {
  const { counts, conditions, cloud, random } = DATA;
  const measured = FRONT.length + cloud.digest.length;
  $("name").textContent = DATA.run;
  $("summary").textContent = `${DATA.is_final ? "" : "The search has not ended; this is the front so far. "}Search space ${DATA.space}: ${FRONT.length} of ${measured} wholly measured architectures ` +
    `are on the front of ${DATA.objectives.map((name) => unit(name).label).join(", ")}; hypervolume ${DATA.hypervolume.toFixed(4)}.`;
  const dot = (style) => shape("svg", { width: 14, height: 14, "aria-hidden": "true" }, shape("circle", { cx: 7, cy: 7, r: 5, style }));
  const cross = () => shape("svg", { width: 14, height: 14, "aria-hidden": "true" }, shape("path", { class: "mark", d: "M2,2l10,10m0,-10l-10,10" }));
  const dashed = () => shape("svg", { width: 24, height: 14, "aria-hidden": "true" }, shape("path", { class: "random", d: "M0,7h24" }));
  $("legend").append(node("span", {}, dot(`fill:${rgb(viridis(0.5))};stroke:var(--ink)`), "Pareto front"), node("span", {}, dot("fill:var(--cloud)"), `${cloud.digest.length} not on it`),
    DATA.baselines.length ? node("span", {}, cross(), "known designs") : "", random ? node("span", {}, dashed(), `random search, ${random.num_trials} trials`) : "");
  const lost = [[counts.failed, "failed"], [counts.pruned, "stopped early, surely dominated"], [counts.repeated, "repeats, measured once"]].filter(([count]) => count);
  $("trade-note").textContent = `Front: ${listed(conditions.front)}${differs ? ` Grey dots and crosses off the front: latency of the ${conditions.cloud.latency_stage} stage, so only their order among themselves counts there.` : ""}` +
    ` MACs and parameters: exact arithmetic.${lost.length ? ` Not drawn: ${lost.map(([count, name]) => `${count} ${name}`).join("; ")}.` : ""}` +
    `${DATA.errors.length ? ` Reasons: ${DATA.errors.map(([text, count]) => `${text} (${count})`).join("; ")}.` : ""}` +
    `${random ? ` Dashed: the front of ${random.run} at equal budget${differs ? "; not beside latency, which it has of the search stage only" : ""}.` : ""}`;
  const box = Object.entries(DATA.references).map(([name, value]) => `${unit(name).label} ${named(name, value)}`).join(", ");
  $("curve-note").textContent = `Share of the box between the ideal and the reference corner (${box}) that all trials so far dominate` +
    `${differs ? `; during the search, latency of the ${conditions.cloud.latency_stage} stage. The front as measured at the end: ${DATA.hypervolume.toFixed(4)}.` : "."}` +
    `${random ? ` Dashed: random search (${random.run}): ${random.hypervolume.toFixed(4)} after ${random.num_trials} trials.` : ""}`;
}

// What other commands found, whatever its keys: nested ones dotted, an interval beside its value, long lists counted.
function flat(value, prefix = "") {
  if (Array.isArray(value)) {
    const isShort = value.length <= 4 && value.every((one) => typeof one !== "object");
    return [[prefix, isShort ? `[${value.map(brief).join(", ")}]` : `${value.length} entries`]];
  }
  if (value === null || typeof value !== "object") return [[prefix, brief(value)]];
  const kept = Object.entries(value).filter(([name]) => name !== "schema_version" && !(name.endsWith("_ci") && name.slice(0, -3) in value));
  return kept.flatMap(([name, inner]) => flat(inner, prefix ? `${prefix}.${name}` : name)
    .map(([words, text]) => [words, value[`${name}_ci`] ? `${text}, 95 % interval ${value[`${name}_ci`].map(brief).join(" to ")}` : text]));
}
const brief = (value) => (value === null ? "not known" : typeof value === "number" && !Number.isInteger(value) ? value.toFixed(3) : String(value));

function trust(host) {
  if (!Object.hasOwn(DATA.findings, "trust.json")) host.append(node("p", { class: "note" }, "Top-1 here is measured with weights inherited from the supernet; how well that ranks stand-alone training was not measured in this run."),
    command("measure it", DATA.trust_command));
  for (const [name, values] of Object.entries(DATA.findings)) {
    if (values.picked) {
      host.append(node("h3", {}, `${values.picked.digest} trained alone`), ...retrained(values));
      continue;
    }
    const pairs = Object.values(values).filter(Array.isArray).find((list) => list.length && known(list[0].inherited_top1) && known(list[0].stand_alone_top1));
    const columns = node("div", { class: "two" }, facts(flat(values)));
    host.append(node("h3", {}, name), columns);
    if (pairs) columns.append(inheritedPlot(pairs));
  }
}

// What `retrain` found: inherited and own top-1 on both splits, of the architecture and of its baseline.
function retrained(values) {
  const spread = (row, key) => `${row[key].toFixed(2)}${known(row[`${key}_sd`]) ? ` ± ${row[`${key}_sd`].toFixed(2)}` : ""}`;
  const rows = [values.picked, values.baseline].filter(known).map((row) => node("tr", {}, node("td", { class: "left" }, `${row.name} (${row.digest})`),
    ...[row.inherited_top1.toFixed(2), spread(row, "top1"), row.inherited_test_top1.toFixed(2), spread(row, "test_top1")].map((text) => node("td", {}, text))));
  const heads = [["architecture", "left"], ...["search", "test"].flatMap((split) => ["inherited", "alone"].map((way) => [`${split}, ${way}`]))];
  const start = values.from === "scratch" ? "random weights" : "the inherited weights";
  const seeds = values.num_seeds > 1 ? `${values.num_seeds} seeds, mean ± standard deviation` : "1 seed";
  return [node("div", { class: "scroll" }, table(heads, rows)), node("p", { class: "note" }, `Top-1, %. Alone: ${values.epochs} epochs from ${start}, ${seeds}. ` +
    `${values.search_images} search images, which chose the architecture; ${values.test_images} test images, which no training and no search has seen. Inherited: supernet ${values.supernet}.`)];
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
for (const name of ["macs", "latency_ms", "params"]) if (isMeasured(name) && sliderRangeOf(name)) $("metric").append(node("option", { value: name }, unit(name).unit));
function sliderRangeOf(name) { return extent(FRONT.map((row) => row[name])); }
for (const [name, digest] of Object.entries(DATA.picks)) $("picks").append(node("button", { type: "button", "data-pick": digest, onclick: () => select(FRONT.findIndex((row) => row.digest === digest)) }, name));
words();
frontTable($("front-table"));
layerSwitch($("layer-switch"), (quantity) => { view.quantity = quantity; heatMap($("layers"), quantity); highlight(); });
trust($("trust"));
conditionTables([node("div"), node("div")].map((one) => { $("conditions").append(one); return one; }));
const macs = extent(FRONT.map((row) => row.macs));
$("log").checked = macs !== null && macs[0] > 0 && macs[1] / macs[0] > 8;
$("bars").checked = FRONT.length <= MANY_BARS;
for (const name of ["log", "zoom", "bars"]) $(name).addEventListener("change", draw);
$("metric").addEventListener("change", () => { $("budget").value = $("budget").max; fromSlider(); });
$("budget").addEventListener("input", fromSlider);
$("limit").addEventListener("input", fromNumber);
$("no-limit").addEventListener("click", () => { $("limit").value = ""; fromNumber(); });
$("budget").value = $("budget").max;
draw();
select(FRONT.findIndex((row) => row.digest === DATA.picks.knee));
let lastWidth = innerWidth;
addEventListener("resize", () => { if (innerWidth !== lastWidth) { lastWidth = innerWidth; draw(); } });
document.documentElement.dataset.drawn = "true";
