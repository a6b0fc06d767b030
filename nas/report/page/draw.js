// Numbers in their units, colours, and the few drawing helpers that all charts share.

const DATA = JSON.parse(document.getElementById("data").textContent);
const FRONT = DATA.front;
const CLOUD = DATA.cloud.digest.map((_, i) => Object.fromEntries(Object.entries(DATA.cloud).map(([name, column]) => [name, column[i]])));
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

// A node; text is set as text, so no name of a run is ever read as markup.
function node(tag, attributes = {}, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}
function shape(tag, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), attributes, children);
}
function furnish(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Other points were measured beside other work, in few rounds: their ratio to the reference is known less well.
const differs = DATA.conditions.cloud && JSON.stringify(DATA.conditions.cloud) !== JSON.stringify(DATA.conditions.front);
const known = (value) => value !== null && value !== undefined;
const unit = (metric) => DATA.units[metric];
const isMeasured = (metric) => unit(metric).is_measured;
// What is drawn above costs: an accuracy, or a metric of a program, of which less may be better; and all of these that were measured.
const ACC = DATA.up.metric, ACCURACIES = ["top1", "balanced_top1", ...DATA.own].filter((metric) => unit(metric) && isMeasured(metric));
const isBetter = (a, b) => (DATA.up.is_more ? a > b : a < b);
const LATENCIES = DATA.targets.map((target) => target.metric);
// Of several targets each is named: by its runtime where that tells them apart.
for (const { metric, target } of DATA.targets) {
  const [runtime] = target.split(":"), isAlone = DATA.targets.filter((other) => other.target.split(":")[0] === runtime).length === 1;
  if (DATA.targets.length > 1) unit(metric).label = `latency on ${isAlone ? runtime : target}`;
}
const COSTS = ["macs", "params", ...(LATENCIES.length ? LATENCIES : ["latency_ms"])];
// What is doubtful about a latency of a point of the front: whether it is noisy, and whom it cannot be told from.
const doubtsOf = (row, metric) => (row.doubts && row.doubts[metric]) || { noisy: false, ties: [] };

// A value in its metric's unit, without the unit's name: axes and column heads have that.
function bare(metric, value, more = 0) {
  if (!known(value)) return "–";
  const { factor, decimals } = unit(metric);
  return (value / factor).toFixed(decimals + more);
}
const named = (metric, value, more = 0) =>
  known(value) ? `${bare(metric, value, more)} ${unit(metric).unit}` : "not measured";
const title = (metric) => (unit(metric).unit.includes(unit(metric).label) ? unit(metric).unit : `${unit(metric).label} (${unit(metric).unit})`);
// Latency is drawn as the ratio to the reference model, which other work on the machine hardly changes.
const axisOf = (metric) => unit(metric).axis || unit(metric);
const axisTitle = (metric) => (unit(metric).axis ? `${unit(metric).label} (${unit(metric).axis.unit})` : title(metric));
function flops(macs) {
  const size = 2 * macs;
  const [factor, prefix] = size >= 1e9 ? [1e9, "G"] : size >= 1e6 ? [1e6, "M"] : size >= 1e3 ? [1e3, "k"] : [1, ""];
  return `${(size / factor).toPrecision(3)} ${prefix}FLOPs/image`;
}
function withInterval(metric, row) {
  const interval = row[`${metric}_ci`];
  const text = named(metric, row[metric], 1);
  return interval ? `${text}, 95 % interval ${bare(metric, interval[0], 1)} to ${bare(metric, interval[1], 1)}` : text;
}

// Viridis (matplotlib), 11 stops: equal steps look equal, also to colour-blind people and in grey.
const VIRIDIS = ["440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725"]
  .map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
function viridis(share) {
  const at = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return VIRIDIS[low].map((value, i) => Math.round(value + (at - low) * (VIRIDIS[low + 1][i] - value)));
}
const rgb = (channels) => `rgb(${channels.join(",")})`;
const inkOn = (channels) => (0.3 * channels[0] + 0.59 * channels[1] + 0.11 * channels[2] > 140 ? "#111" : "#fff");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (known(value)) { low = Math.min(low, value); high = Math.max(high, value); }
  return low <= high ? [low, high] : null;
}
function shareOf(value, [low, high], isLog = false) {
  if (!(high > low)) return 0.5;
  return isLog ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
}

// From values to pixels. A logarithmic scale needs positive values.
function scale([low, high], [from, to], isLog = false) {
  const place = isLog ? Math.log : (value) => value;
  const [a, b] = [place(low), place(high)];
  return (value) => from + ((place(value) - a) / (b - a || 1)) * (to - from);
}
function ticks([low, high], wanted, isLog = false) {
  if (isLog) {
    const found = [];
    const dense = Math.log10(high / low) < 1.3 ? [1, 1.5, 2, 3, 4, 5, 7] : Math.log10(high / low) < 2.5 ? [1, 2, 5] : [1];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const digit of dense) found.push(digit * 10 ** power);
    return found.filter((value) => value >= low && value <= high);
  }
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((digit) => digit * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}
const short = (value) => String(+value.toPrecision(4));
function widened([low, high], share, isLog = false) {
  if (isLog) { const ratio = (high / low) ** share || 1.1; return [low / Math.max(ratio, 1.02), high * Math.max(ratio, 1.02)]; }
  const gap = (high - low || Math.abs(high) || 1) * share;
  return [low - gap, high + gap];
}

// Both axes with grid, tick labels and names. `box` = left, top, right, bottom in pixels.
function axes(svg, box, x, y) {
  const [left, top, right, bottom] = box;
  let taken = -Infinity;
  for (const value of x.ticks) {
    const at = x.to(value), half = 3.5 * x.say(value).length + 2;
    svg.append(shape("line", { class: "grid", x1: at, x2: at, y1: top, y2: bottom }));
    if (at - half < taken) continue; // its number would run into the one before
    svg.append(shape("text", { class: "soft", x: at, y: bottom + 16, "text-anchor": "middle" }, x.say(value)));
    taken = at + half;
  }
  for (const value of y.ticks) {
    const at = y.to(value);
    svg.append(shape("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }),
      shape("text", { class: "soft", x: left - 7, y: at + 4, "text-anchor": "end" }, y.say(value)));
  }
  svg.append(shape("path", { class: "axis", d: `M${left},${top}V${bottom}H${right}` }),
    shape("text", { x: (left + right) / 2, y: bottom + 36, "text-anchor": "middle" }, x.name),
    shape("text", { x: left - 40, y: top - 10 }, y.name));
}

function showTip(event, text) {
  const tip = $("tip");
  tip.textContent = text;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 6))}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 6))}px`;
}
const hideTip = () => { $("tip").hidden = true; };

// A command with a button that copies it; clipboards are closed to some pages on disk, hence the second way.
function command(words, text) {
  const code = node("code", {}, ...text.split(" ").flatMap((word) => [node("span", {}, word), " "])); // no break after a hyphen
  const button = node("button", { type: "button", "aria-label": `Copy the ${words} command` }, "Copy");
  button.addEventListener("click", async () => {
    let isDone = false;
    try { await navigator.clipboard.writeText(text); isDone = true; } catch {
      getSelection().selectAllChildren(code);
      isDone = document.execCommand("copy");
    }
    button.textContent = isDone ? "Copied" : "Press Ctrl-C";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return node("div", { class: "command" }, node("span", {}, words), code, button);
}

// What draws on a canvas of so many pixels of the page, which is emptied.
function penOf(canvas, width, height) {
  const ratio = devicePixelRatio || 1, pen = canvas.getContext("2d");
  canvas.width = width * ratio; canvas.height = height * ratio;
  canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
  pen.scale(ratio, ratio);
  return pen;
}

// A digest that can be chosen, where the page has its network.
const chooser = (digest) => (rowOf(digest) ? node("button", { type: "button", class: "mono", "data-digest": digest }, digest) : digest);

// Names beside marks ([x, y]); of some places around its mark a name takes the first that is free.
function labeller(svg, [left, top, right, bottom], marks) {
  const taken = marks.map(([x, y]) => [x - 6, y + 4, 12]);
  return (at, up, words, kind, aside = 0) => { // `aside`: how far the mark reaches to the left of `at`
    const wide = words.length * 6.6;
    const back = -8 - wide - aside;
    const places = [[8, 4], [back, 4], [-wide / 2, -10], [-wide / 2, 19], ...[-12, 20, 34, -26, 48, -40, 62, -54].flatMap((dy) => [[8, dy], [back, dy]])];
    const isFree = ([dx, dy]) => at + dx > left && at + dx + wide < right + 8 && up + dy > top && up + dy < bottom && taken.every(([a, b, w]) =>
      at + dx > a + w || at + dx + wide < a || Math.abs(up + dy - b) > 13);
    const beside = aside ? places.filter(([dx]) => dx !== -wide / 2) : places;
    const [dx, dy] = beside.find(isFree) || beside[0];
    taken.push([at + dx, up + dy, wide]);
    if (Math.abs(dy) > 20) svg.append(shape("path", { class: "leader", d: `M${at},${up}L${at + (dx < 0 ? -8 : 8)},${up + dy - 4}` }));
    svg.append(shape("text", { class: `${kind} halo`, x: at + dx, y: up + dy }, words));
  };
}

function table(heads, rows) {
  const head = node("tr", {}, ...heads.map(([text, kind]) => node("th", { class: kind, scope: "col" }, text)));
  for (const row of rows) heads.forEach(([text], i) => row.cells[i].setAttribute("data-label", text));
  return node("table", {}, node("thead", {}, head), node("tbody", {}, ...rows));
}
// A table that is wider than its place becomes a list: every row a block of named values.
function fitTables() {
  for (const one of document.querySelectorAll("table")) one.classList.remove("stacked");
  const wide = [...document.querySelectorAll("table")].filter((one) => one.offsetWidth > one.parentElement.clientWidth);
  for (const one of wide) one.classList.add("stacked");
}
