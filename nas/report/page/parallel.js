// Parallel coordinates, and the ranges that a reader draws on their axes: what is outside is dimmed on the whole page.

const ranges = new Map(); // axis -> [lowest, highest] in the axis' own values
const AXES = [
  ...Object.entries(DATA.genes).map(([id, [name, words]]) => ({ id, name, unit: words, say: (value) => short(+value.toPrecision(3)) })),
  ...[...COSTS, ...ACCURACIES].filter((metric) => isMeasured(metric) && FRONT.some((row) => known(row[metric]))).map((id) => ({ id,
    name: LATENCIES.length > 1 && LATENCIES.includes(id) ? `latency ${LATENCIES.indexOf(id) + 1}` : id === "params" ? "params" : unit(id).label,
    unit: unit(id).unit.replace(/\/image| parameters| \/ [\d,]+ images?/, ""), say: (value) => bare(id, value) })),
];
const holds = (valueOf) => [...ranges].every(([axis, [low, high]]) => { const value = valueOf(axis); return known(value) && value >= low && value <= high; });
const isWithin = (row) => holds((axis) => row[axis]);
const isCloudWithin = (i) => ranges.size === 0 || holds((axis) => DATA.cloud[axis] && DATA.cloud[axis][i]);
const rangeWords = () => AXES.filter((axis) => ranges.has(axis.id)).map((axis) => `${axis.name} ${ranges.get(axis.id).map(axis.say).join(" to ")} ${axis.unit}`).join("; ");
const HANDLE = 8; // pixels

function parallel(host, onChange) {
  const width = Math.max(host.clientWidth, 62 * AXES.length), height = 340, top = 62, bottom = height - 28;
  const x = (i) => 44 + (i * (width - 88)) / Math.max(AXES.length - 1, 1);
  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", style: "max-width:none",
    "aria-label": `Parallel coordinates of ${FRONT.length} architectures. Every axis has a handle for its lowest and one for its highest value: ` +
      "left and right arrow keys go from handle to handle, up and down move one, Escape clears all. The same values are in the table of the front." });
  const spans = AXES.map((axis) => extent(FRONT.map((row) => row[axis.id])));
  const to = (j, value) => bottom - shareOf(value, spans[j]) * (bottom - top);
  const shades = extent(FRONT.map((row) => row[ACC]));
  FRONT.forEach((row, i) => {
    const there = AXES.map((axis, j) => [x(j), row[axis.id], j]).filter(([, value]) => known(value));
    const path = there.map(([at, value, j], k) => `${k ? "L" : "M"}${at.toFixed(1)},${to(j, value).toFixed(1)}`).join("");
    svg.append(shape("path", { class: "line", d: path, "data-digest": row.digest, stroke: rgb(viridis(shareOf(row[ACC], shades))), onclick: () => select(i),
      onpointermove: (event) => showTip(event, describe(row)), onpointerleave: hideTip }));
  });
  svg.append(shape("path", { class: "chosen" }));
  const handles = [], updates = [];
  AXES.forEach((axis, j) => {
    const middle = { x: x(j), "text-anchor": "middle" };
    svg.append(shape("path", { class: "axis", d: `M${x(j)},${top}V${bottom}` }),
      shape("text", { ...middle, y: 14 }, axis.name), shape("text", { ...middle, y: 29, class: "soft", style: "font-size:11px" }, axis.unit),
      shape("text", { ...middle, y: top - 12, class: "soft halo" }, axis.say(spans[j][1])),
      shape("text", { ...middle, y: bottom + 21, class: "soft halo" }, axis.say(spans[j][0])));
    const values = [...new Set(FRONT.map((row) => row[axis.id]).filter(known))].sort((a, b) => a - b);
    if (values.length > 1) rangeOf(svg, axis, values, { x: x(j), top, bottom, to: (value) => to(j, value) }, handles, updates, onChange);
  });
  if (handles.length) handles[0].setAttribute("tabindex", 0);
  host.replaceChildren(svg);
  return () => { for (const update of updates) update(); };
}

// The range of one axis: a drag on the axis draws it, its ends are handles for pointer and keys, a click clears it.
function rangeOf(svg, axis, values, place, handles, updates, onChange) {
  const [least, most] = [values[0], values.at(-1)];
  const now = () => ranges.get(axis.id) || [least, most];
  const strip = shape("rect", { class: "strip", x: place.x - 13, width: 26, y: place.top - HANDLE, height: place.bottom - place.top + 2 * HANDLE });
  const bar = shape("rect", { class: "range", x: place.x - 6, width: 12 });
  const ends = ["lowest", "highest"].map((words) => shape("rect", { class: "handle", role: "slider", tabindex: -1, x: place.x - 9, width: 18, height: HANDLE, rx: 2,
    "aria-orientation": "vertical", "aria-label": `${axis.name}, ${words}`, "aria-valuemin": least, "aria-valuemax": most }));
  const show = () => {
    const pair = now(), [low, high] = pair.map(place.to);
    bar.setAttribute("y", high); bar.setAttribute("height", Math.max(low - high, 1));
    bar.setAttribute("visibility", ranges.has(axis.id) ? "visible" : "hidden");
    ends[0].setAttribute("y", low); ends[1].setAttribute("y", high - HANDLE);
    ends.forEach((handle, end) => { handle.setAttribute("aria-valuenow", pair[end]); handle.setAttribute("aria-valuetext", `${axis.say(pair[end])} ${axis.unit}`); handle.classList.toggle("set", ranges.has(axis.id)); });
  };
  const put = (low, high) => {
    if (low <= least && high >= most) ranges.delete(axis.id); else ranges.set(axis.id, [low, high]);
    show();
    onChange();
  };
  const from = (y) => least + Math.min(Math.max((place.bottom - y) / (place.bottom - place.top), 0), 1) * (most - least);
  const drag = (event, fixed) => {
    if (event.button !== 0) return;
    event.preventDefault();
    const target = event.currentTarget, height = (at) => at.clientY - svg.getBoundingClientRect().top, start = height(event);
    const anchor = fixed === null ? from(start) : fixed;
    const move = (at) => { const end = from(height(at)); put(Math.min(anchor, end), Math.max(anchor, end)); };
    target.setPointerCapture(event.pointerId);
    target.addEventListener("pointermove", move);
    target.addEventListener("lostpointercapture", (at) => {
      target.removeEventListener("pointermove", move);
      if (fixed === null && Math.abs(height(at) - start) < 4) put(least, most);
    }, { once: true });
  };
  strip.addEventListener("pointerdown", (event) => drag(event, null));
  ends.forEach((handle, end) => {
    handle.addEventListener("pointerdown", (event) => { handle.focus(); drag(event, now()[1 - end]); });
    handle.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 1, ArrowDown: -1 }[event.key], aside = { ArrowRight: 1, ArrowLeft: -1 }[event.key], edge = { Home: 0, End: values.length - 1 }[event.key];
      const pair = [...now()];
      if (aside) {
        const next = handles[Math.min(Math.max(handles.indexOf(handle) + aside, 0), handles.length - 1)];
        handle.setAttribute("tabindex", -1); next.setAttribute("tabindex", 0);
        next.focus();
      } else if (step || known(edge)) {
        const at = end ? values.findLastIndex((value) => value <= pair[1]) : values.findIndex((value) => value >= pair[0]);
        pair[end] = values[known(edge) ? edge : Math.min(Math.max(at + step, 0), values.length - 1)];
        if (pair[0] > pair[1]) pair[1 - end] = pair[end]; // it pushes the other end along
        put(...pair);
      } else if (event.key === "Delete" || event.key === "Backspace") put(least, most);
      else return;
      event.preventDefault();
    });
  });
  svg.append(strip, bar, ...ends);
  handles.push(...ends);
  updates.push(show);
  show();
}
