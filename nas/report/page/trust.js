// How far the numbers can be trusted: the order the supernet gives, the noise of every quantity, the supernets.

const withRange = (values, key, digits = 2) => (known(values[key]) ? `${values[key].toFixed(digits)} [${values[`${key}_ci`].map((one) => one.toFixed(digits)).join(", ")}]` : "–");
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function trustSection(host) {
  const found = DATA.trust;
  if (!found) {
    host.append(node("p", { class: "note" }, `Top-1 ${DATA.finalists ? "of what is not on the front" : "here"} is measured with weights inherited from the supernet; how well that ranks stand-alone training was not measured in this run.`),
      command("measure", DATA.trust_command));
    return;
  }
  const rows = [[`inherited ${found.accuracy || "top-1"}`, withRange(found, "kendall_tau"), withRange(found, "spearman_rho"), ""],
    ...Object.entries(DATA.trust_baselines).map(([key, words]) => [words, ...["kendall_tau", "spearman_rho", "tau_above_it"].map((name) => withRange(found.baselines[key], name))]),
    ["another seed (ceiling)", withRange(found, "seed_to_seed_tau"), "", ""]];
  const heads = [["ranked by", "left"], ["Kendall tau"], ["Spearman rho"], ["inherited is above it in tau by"]];
  const body = rows.map(([words, ...cells]) => node("tr", {}, node("td", { class: "left" }, words), ...cells.map((text) => node("td", {}, text))));
  host.append(node("p", { class: "verdict" }, `${found.verdict[0].toUpperCase()}${found.verdict.slice(1)}.`), node("div", { class: "two wide-right" },
    node("div", {}, node("div", { class: "scroll" }, table(heads, body)), node("p", { class: "note" },
      `Order of ${found.num_architectures} architectures, each trained alone ${count(found.num_seeds, "time")} for ${count(found.epochs, "epoch")}. Inherited top-1 is ${withRange(found, "gap_points")} points from stand-alone top-1, on average. ` +
      `${found.num_images} images of the ${found.split} split, ${found.precision}, weights of the supernet ${found.supernet}. Brackets hold 95 % of resamples of the architectures.` +
      `${found.failed.length ? ` ${count(found.failed.length, "training")} failed; their architectures are left out.` : ""}`)),
    node("div", { class: "scroll" }, inheritedPlot(found.architectures, found.accuracy || "top-1"))));
}

// Inherited against stand-alone top-1; bars reach from the worst seed to the best, the dotted line is equality.
function inheritedPlot(pairs, accuracy) {
  const width = Math.min(440, document.querySelector("main").clientWidth), height = 320, box = [52, 46, width - 14, height - 46];
  const xRange = widened(extent(pairs.flatMap((one) => one.stand_alone_top1_by_seed)), 0.06), yRange = widened(extent(pairs.map((one) => one.inherited_top1)), 0.06);
  const x = scale(xRange, [box[0], box[2]]), y = scale(yRange, [box[3], box[1]]), shades = extent(pairs.map((one) => one.macs));
  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Inherited against stand-alone top-1 of ${pairs.length} architectures` });
  axes(svg, box, { to: x, ticks: ticks(xRange, 5), say: short, name: `${accuracy} trained alone (%)` }, { to: y, ticks: ticks(yRange, 5), say: short, name: `inherited ${accuracy} (%)` });
  const [low, high] = [Math.max(xRange[0], yRange[0]), Math.min(xRange[1], yRange[1])];
  if (low < high) svg.append(shape("path", { class: "equal", d: `M${x(low)},${y(low)}L${x(high)},${y(high)}` }), shape("text", { class: "soft halo", x: x(high) - 6, y: y(high) + 16, "text-anchor": "end" }, "equal"));
  colourBar(svg, "macs", shades, box[2], width, false);
  for (const one of pairs) {
    const [worst, best] = extent(one.stand_alone_top1_by_seed);
    svg.append(shape("path", { class: "interval", d: `M${x(worst)},${y(one.inherited_top1)}H${x(best)}` }),
      shape("circle", { r: 5, class: "pair", cx: x(one.stand_alone_top1), cy: y(one.inherited_top1), fill: rgb(viridis(shareOf(one.macs, shades))), onpointerleave: hideTip,
        onpointermove: (event) => showTip(event, `${one.digest}\n${named("macs", one.macs)}\ninherited ${one.inherited_top1.toFixed(2)} %\nalone ${one.stand_alone_top1_by_seed.map((value) => value.toFixed(2)).join(", ")} %`) }));
  }
  return svg;
}

// What of a number is chance: of the images, of the clock, of the training.
function noiseSection(host) {
  const halves = FRONT.filter((row) => row.top1_ci).map((row) => (row.top1_ci[1] - row.top1_ci[0]) / 2);
  const pairs = halves.length ? [["top-1, which images", `95 % intervals of ± ${average(halves).toFixed(1)} points on average: ${DATA.conditions.front.num_images} images of the ${DATA.conditions.front.split} split`]] : [];
  for (const { metric, target } of DATA.targets) {
    const wide = FRONT.filter((row) => row[`${metric}_ci`]).map((row) => (50 * (row[`${metric}_ci`][1] - row[`${metric}_ci`][0])) / row[metric]);
    if (wide.length) pairs.push([`latency, ${target}`, `95 % intervals of ± ${average(wide).toFixed(1)} % on average`]);
  }
  const { trust } = DATA, seeds = trust && trust.architectures.map((one) => one.stand_alone_top1_by_seed).filter((values) => values.length > 1);
  if (seeds && seeds.length) pairs.push(["top-1 trained alone, which seed", `the seeds of an architecture are ${average(seeds.map((values) => Math.max(...values) - Math.min(...values))).toFixed(1)} points apart on average (${count(trust.num_seeds, "seed")}); two seeds rank alike with tau ${withRange(trust, "seed_to_seed_tau")}`]);
  host.append(pairs.length ? facts(pairs) : node("p", { class: "note" }, "This run holds no intervals."));
  const isKnown = DATA.targets.some((target) => target.runtime);
  if (!isKnown) return;
  const rows = DATA.targets.map((target) => {
    const doubts = FRONT.map((row) => doubtsOf(row, target.metric)), { before, after } = target.machine, load = [before, after].map((state) => state.load_average[0]).join(" → ");
    const cells = [target.repeat_tau === null ? "too few" : target.repeat_tau.toFixed(2), `${doubts.filter((one) => one.noisy).length} of ${FRONT.length}`, `${doubts.filter((one) => one.ties.length).length} of ${FRONT.length}`,
      String(target.batch), String(target.threads), target.precision, [target.reference_ms, target.reference_slow_ms].filter(known).map((value) => value.toFixed(2)).join(", slow "), load];
    return node("tr", {}, node("td", { class: "left" }, target.target), ...cells.map((text) => node("td", {}, text)), node("td", { class: "left words" }, `${target.runtime}, torch ${target.torch}`));
  });
  const heads = [["latency on", "left"], ["repeat tau"], ["noisy"], ["tied"], ["batch"], ["threads"], ["precision"], ["reference (ms)"], ["load"], ["runtime", "left words"]];
  host.append(node("div", { class: "scroll apart" }, table(heads, rows)), node("p", { class: "note" }, "Repeat tau: Kendall's correlation of the order in two halves of the rounds; 1 is the same order. Noisy: the interval of the median is wider than ± 2 %. " +
    "Tied: its interval overlaps another's, so which of both is faster is not known. Reference, slow: its time in the machine's slow moments (95 % of 20 parts of the measuring were faster); a bound on latency is kept at that speed. Load: of the machine, average of one minute, before and after."));
}

function supernetSection(section, host) {
  section.hidden = !DATA.supernets.length;
  const said = (value) => (typeof value === "number" ? short(value) : String(value));
  const rows = DATA.supernets.map((one) => node("tr", {}, node("td", {}, String(one.number)), node("td", { class: "left mono" }, one.key), node("td", { class: "left" }, one.error ? `${one.state}: ${one.error}` : one.state),
    ...[known(one.score) ? one.score.toFixed(4) : "–", one.num_trials, one.num_on_front].map((value) => node("td", {}, String(value))),
    node("td", { class: "left words" }, Object.entries(one.parameters).map(([name, value]) => `${name} ${said(value)}`).join(", "))));
  host.append(table([["number"], ["folder", "left"], ["state", "left"], ["score"], ["trials"], ["on the front"], ["trained with", "left"]], rows));
}
