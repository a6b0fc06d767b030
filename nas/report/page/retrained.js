// Networks that were trained alone: their marks in the scatter plots, their numbers in words and in a table.

const ASIDE = 11; // pixels to the right: the test split's marks, so that both splits can be read
const spread = (row, key) => `${row[key].toFixed(2)}${known(row[`${key}_sd`]) ? ` ± ${row[`${key}_sd`].toFixed(2)}` : ""}`;
const STARTS = { scratch: "random weights", inherited: "the inherited weights", timm: "timm's weights" };
const trainedHow = (row) => `${row.epochs} epoch${row.epochs === 1 ? "" : "s"} from ${STARTS[row.from]}, ` +
  (row.seeds.length > 1 ? `${row.seeds.length} seeds: mean ± standard deviation` : "1 seed");

// A model of timm has no weights in the supernet.
const before = (row, key) => (known(row[`inherited_${key}`]) ? row[`inherited_${key}`].toFixed(2) : "–");

function describeRetrained(row) {
  return `${row.name} (${row.digest}), trained alone\n${trainedHow(row)}\nsearch split: inherited ${before(row, "top1")} %, alone ${spread(row, "top1")} %\n` +
    `TEST split: inherited ${before(row, "test_top1")} %, alone ${spread(row, "test_top1")} %`;
}

// What the axes have to make room for.
function retrainedColumns(metric) {
  const rows = DATA.retrained.filter((row) => known(row[metric]) && known(row[ACC]));
  const tops = (row) => [ACC, `test_${ACC}`].flatMap((key) => [...(known(row[`inherited_${key}`]) ? [row[`inherited_${key}`]] : []), row[key] - (row[`${key}_sd`] || 0), row[key] + (row[`${key}_sd`] || 0)]);
  return { [metric]: rows.map((row) => row[metric]), [ACC]: rows.flatMap(tops) };
}

const diamond = (x, y, r = 6) => `M${x},${y - r}L${x + r},${y}L${x},${y + r}L${x - r},${y}Z`;
const triangle = (x, y, r = 5.5) => `M${x},${y - r}L${x + r},${y + r * 0.8}L${x - r},${y + r * 0.8}Z`;

// Filled on the search split, hollow and set aside on the test split; a triangle before, a diamond after the training.
function retrainedMarks(svg, metric, x, y, [left, top, right, bottom], label) {
  DATA.retrained.forEach((row, i) => {
    if (!known(row[metric]) || !known(row[ACC])) return;
    const at = x(row[metric]), group = shape("g", { class: "alone", "data-alone": i, "data-digest": row.digest });
    if (at < left || at > right) return;
    for (const [key, across, split] of [[ACC, at, "search"], [`test_${ACC}`, at + ASIDE, "test"]]) {
      const isInherited = known(row[`inherited_${key}`]), after = y(row[key]), first = isInherited ? y(row[`inherited_${key}`]) : after, sd = row[`${key}_sd`];
      if (Math.min(first, after) < top || Math.max(first, after) > bottom) continue;
      group.append(shape("path", { class: "way", d: `M${across},${first}V${after}` }));
      if (known(sd)) group.append(shape("path", { class: "sd", d: `M${across - 4},${y(row[key] + sd)}h8m-4,0V${y(row[key] - sd)}m-4,0h8` }));
      if (isInherited && (split === "test" || !row.is_on_front)) group.append(shape("path", { class: split, d: triangle(across, first) }));
      group.append(shape("path", { class: split, d: diamond(across, after) }));
    }
    if (!group.childElementCount) return;
    svg.append(group);
    label(at + ASIDE, y(row[ACC]), `${row.name}, alone`, "alone-name", ASIDE);
  });
}

function retrainedLegend() {
  const sign = (kind, path) => shape("svg", { width: 14, height: 14, "aria-hidden": "true" }, shape("path", { class: kind, d: path(7, 7) }));
  return [node("span", { class: "alone" }, sign("search", diamond), "trained alone, search split"), node("span", { class: "alone" }, sign("test", diamond), "trained alone, TEST split"),
    node("span", { class: "alone" }, sign("test", triangle), "inherited, TEST split")];
}

// How the front was chosen: every candidate, by cost, with its accuracies on the search split.
function finalistsTable() {
  const { candidates, epochs, seeds } = DATA.finalists;
  const shown = (value) => (known(value) ? value.toFixed(2) : "");
  const rows = [...candidates].sort((one, other) => one.macs - other.macs).map((row) => node("tr", {}, node("td", { class: "left" }, chooser(row.digest)), node("td", {}, bare("macs", row.macs, 1)),
    ...[row.inherited, ...row.trained].map((value) => node("td", {}, shown(value))), ...(seeds > 1 ? [node("td", {}, row.mean_ci ? row.mean_ci.map(shown).join(" to ") : "")] : []), node("td", { class: "left" }, [row.chosen && "chosen", row.plain && "plain ViT", row.on_inherited_front && "was on the inherited front"].filter(Boolean).join(", "))));
  const heads = [["candidate", "left"], [title("macs")], ["inherited"], ...epochs.map((count) => [`${count} epoch${count === 1 ? "" : "s"} alone`]), ...(seeds > 1 ? [[`mean of ${seeds} seeds, 95 %`]] : []), ["", "left"]];
  return node("div", {}, node("div", { class: "scroll", id: "finalists" }, table(heads, rows)), node("p", { class: "note" }, `Finalists: ${unit(DATA.finalists.accuracy).label}, %, on the search split, which chose them. ` +
    "Each was trained alone from its slice of the supernet; the half that is least beaten at no more cost for all epochs, and those that none of the others dominates are the front. What is not on it was measured with the supernet's weights."));
}

function retrainedSection(host) {
  if (DATA.finalists) host.append(finalistsTable());
  if (!DATA.retrained.length) {
    host.append(node("p", { class: "note" }, "No architecture of this front was trained alone."), command("train one", DATA.retrain_command));
    return;
  }
  const rows = DATA.retrained.map((row) => node("tr", {}, node("td", { class: "left" }, `${row.is_baseline ? "baseline: " : ""}${row.name} `, row.name === row.digest ? "" : chooser(row.digest)), node("td", {}, bare("macs", row.macs, 1)),
    ...[before(row, "top1"), spread(row, "top1"), before(row, "test_top1"), spread(row, "test_top1")].map((text) => node("td", {}, text)), node("td", { class: "left words" }, `${trainedHow(row)}; ${known(row.latency_alone_ms) ? `${row.latency_alone_ms.toPrecision(3)} ms in turn; ` : ""}${row.file}`)));
  const heads = [["architecture", "left"], [title("macs")], ...["search split", "TEST split"].flatMap((split) => [[`${split}, inherited`], [`${split}, alone`]]), ["trained", "left"]];
  const [first] = DATA.retrained;
  host.append(node("div", { class: "scroll" }, table(heads, rows)), node("p", { class: "note" }, `Top-1, %; ± is the standard deviation over seeds. Baselines were trained the same way. ` +
    `The ${first.search_images} search images chose the architectures; the ${first.test_images} test images no training and no search has seen, so only they say how good a network is on new images. Inherited: weights of the supernet.`));
}
