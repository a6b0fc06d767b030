// Parallel coordinates of all that was measured, and the ranges that a reader draws on their axes: what is outside is dimmed on the whole page.

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
const HANDLE = 8, ROOM = 62, LINE_REACH = 5; // pixels: a handle's length, the least from axis to axis, how near to a line a click is

// Axes stand side by side; where they have no room so, they lie one below the other. `place` knows which: `axis` is where an
// axis is across its direction, `low` and `high` where its values begin and end.
function parallel(host, onChange) {
  const width = host.clientWidth, isLying = width < ROOM * AXES.length, height = isLying ? 44 * AXES.length + 20 : 340;
  const [low, high] = isLying ? [48, width - 48] : [height - 28, 62];
  const place = { isLying, low, high, axis: (j) => (isLying ? 30 + 44 * j : 44 + (j * (width - 88)) / Math.max(AXES.length - 1, 1)), at: (j, value) => (isLying ? [value, place.axis(j)] : [place.axis(j), value]) };
  const spans = AXES.map((axis) => extent([...FRONT.map((row) => row[axis.id]), ...(DATA.cloud[axis.id] || [])]));
  const to = (j, value) => low + shareOf(value, spans[j]) * (high - low);
  const corners = (row) => AXES.map((axis, j) => [j, row[axis.id]]).filter(([, value]) => known(value)).map(([j, value]) => place.at(j, to(j, value)));
  const path = (row) => corners(row).map(([x, y], k) => `${k ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");
  const shades = extent([...FRONT.map((row) => row[ACC]), ...DATA.cloud[ACC]]), colour = (row) => rgb(viridis(shareOf(row[ACC], shades)));
  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", class: isLying ? "lying" : null,
    "aria-label": `Parallel coordinates of ${FRONT.length + CLOUD.length} architectures. Every axis has a handle for its lowest and one for its highest value: ` +
      "left and right arrow keys go from handle to handle, up and down move one, Escape clears all. Values of the front are in its table." });
  const canvas = node("canvas", { "aria-hidden": "true" }), drawn = shape("path", { class: "chosen" });
  for (const row of FRONT) svg.append(shape("path", { class: "line", d: path(row), "data-digest": row.digest, stroke: colour(row), onpointermove: (event) => showTip(event, describe(row)), onpointerleave: hideTip }));
  svg.append(drawn);
  const handles = [], updates = [];
  AXES.forEach((axis, j) => {
    const text = ([x, y], anchor, words, more) => shape("text", { x, y, "text-anchor": anchor, ...more }, words), soft = { class: "soft halo" };
    const [start, end] = [low, high].map((value) => place.at(j, value));
    svg.append(shape("path", { class: "axis", d: `M${start}L${end}` }), ...(isLying
      ? [text([low, start[1] - 12], "start", `${axis.name} (${axis.unit})`, { class: "halo" }), text([low - 12, start[1] + 4], "end", axis.say(spans[j][0]), soft), text([high + 12, end[1] + 4], "start", axis.say(spans[j][1]), soft)]
      : [text([end[0], 14], "middle", axis.name), text([end[0], 29], "middle", axis.unit, { class: "soft", style: "font-size:11px" }), text([end[0], high - 12], "middle", axis.say(spans[j][1]), soft), text([end[0], low + 21], "middle", axis.say(spans[j][0]), soft)]));
    const values = [...new Set([spans[j][0], ...FRONT.map((row) => row[axis.id]).filter(known), spans[j][1]])].sort((a, b) => a - b);
    if (values.length > 1) rangeOf(svg, axis, j, values, place, (value) => to(j, value), handles, updates, onChange);
  });
  if (handles.length) handles[0].setAttribute("tabindex", 0);
  const lines = CLOUD.map((row) => ({ row, corners: corners(row), stroke: colour(row) }));
  const near = (event) => { // the line of a network that is not on the front, under the pointer
    if (event.target !== svg) return null;
    const box = svg.getBoundingClientRect(), pointer = [event.clientX - box.left, event.clientY - box.top], [along, aside] = isLying ? [1, 0] : [0, 1];
    let best = null, least = LINE_REACH;
    lines.forEach(({ row, corners }, i) => {
      const k = corners.findIndex((corner) => corner[along] > pointer[along]);
      if (k < 1 || !isCloudWithin(i)) return;
      const share = (pointer[along] - corners[k - 1][along]) / (corners[k][along] - corners[k - 1][along]);
      const far = Math.abs(corners[k - 1][aside] + share * (corners[k][aside] - corners[k - 1][aside]) - pointer[aside]);
      if (far < least) [best, least] = [row, far];
    });
    return best;
  };
  svg.addEventListener("pointermove", (event) => { const row = near(event); if (row) showTip(event, `${describe(row)}\nnot on the front`); else if (event.target === svg) hideTip(); });
  svg.addEventListener("click", (event) => { const row = near(event); if (row) choose(row.digest); });
  host.replaceChildren(node("div", { class: "plot" }, canvas, svg));
  return {
    showRanges() { for (const update of updates) update(); },
    place(row) { drawn.setAttribute("d", path(row)); },
    paint() {
      const pen = penOf(canvas, width, height);
      pen.globalAlpha = Math.max(0.08, Math.min(0.5, 40 / CLOUD.length));
      const inside = lines.filter((_, i) => isCloudWithin(i));
      for (const { corners, stroke } of inside) {
        pen.strokeStyle = stroke;
        pen.beginPath();
        for (const [x, y] of corners) pen.lineTo(x, y);
        pen.stroke();
      }
      canvas.dataset.lines = inside.length;
    },
  };
}

// The range of one axis: a drag on the axis draws it, its ends are handles for pointer and keys, a click clears it.
function rangeOf(svg, axis, j, values, place, to, handles, updates, onChange) {
  const [least, most] = [values[0], values.at(-1)], outward = Math.sign(place.low - place.high) * HANDLE;
  const now = () => ranges.get(axis.id) || [least, most];
  const put = (one, from, end, half) => { // a rectangle from a place of the axis to another
    const [x, y] = place.at(j, Math.min(from, end)), long = Math.max(Math.abs(end - from), 1);
    const box = place.isLying ? { x, y: y - half, width: long, height: 2 * half } : { x: x - half, y, width: 2 * half, height: long };
    for (const [name, value] of Object.entries(box)) one.setAttribute(name, value);
    return one;
  };
  const strip = put(shape("rect", { class: "strip" }), place.low + outward, place.high - outward, 13), bar = shape("rect", { class: "range" });
  const ends = ["lowest", "highest"].map((words) => shape("rect", { class: "handle", role: "slider", tabindex: -1, rx: 2,
    "aria-orientation": place.isLying ? "horizontal" : "vertical", "aria-label": `${axis.name}, ${words}`, "aria-valuemin": least, "aria-valuemax": most }));
  const show = () => {
    const pair = now(), [low, high] = pair.map(to);
    put(bar, low, high, 6);
    bar.setAttribute("visibility", ranges.has(axis.id) ? "visible" : "hidden");
    put(ends[0], low, low + outward, 9); put(ends[1], high, high - outward, 9);
    ends.forEach((handle, end) => { handle.setAttribute("aria-valuenow", pair[end]); handle.setAttribute("aria-valuetext", `${axis.say(pair[end])} ${axis.unit}`); handle.classList.toggle("set", ranges.has(axis.id)); });
  };
  const limit = (low, high) => {
    if (low <= least && high >= most) ranges.delete(axis.id); else ranges.set(axis.id, [low, high]);
    show();
    onChange();
  };
  const from = (value) => least + Math.min(Math.max((value - place.low) / (place.high - place.low), 0), 1) * (most - least);
  const drag = (event, fixed) => {
    if (event.button !== 0) return;
    event.preventDefault();
    const target = event.currentTarget, along = (at) => { const box = svg.getBoundingClientRect(); return place.isLying ? at.clientX - box.left : at.clientY - box.top; }, start = along(event);
    const anchor = fixed === null ? from(start) : fixed;
    const move = (at) => { const end = from(along(at)); limit(Math.min(anchor, end), Math.max(anchor, end)); };
    target.setPointerCapture(event.pointerId);
    target.addEventListener("pointermove", move);
    target.addEventListener("lostpointercapture", (at) => {
      target.removeEventListener("pointermove", move);
      if (fixed === null && Math.abs(along(at) - start) < 4) limit(least, most);
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
        limit(...pair);
      } else if (event.key === "Delete" || event.key === "Backspace") limit(least, most);
      else return;
      event.preventDefault();
    });
  });
  svg.append(strip, bar, ...ends);
  handles.push(...ends);
  updates.push(show);
  show();
}
