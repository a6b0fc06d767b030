"""The figure of a run: accuracy against MACs and against latency, with the front, its staircase and its knee."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.base import LATENCY, MACS, Metric, atomic_write_bytes, plural, unit_of, with_interval
from nas.report.front_table import axis_words, conditions_lines, plain_lines, ratio_words
from nas.runs import FrontPoint, ParetoFront, PlainViTs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#b8b8b8"
RETRAINED = "#8a3ffc"
PLAIN = "tab:orange"
TEST_ASIDE = 8  # points to the right, so that both splits can be read
COLOUR_MAP = "viridis"  # readable by colour-blind people and in grey
LABEL_BOX = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.85}
LEGEND_COLUMNS = 6  # fit side by side; more are two rows
LABEL_ROW, LABEL_WIDTH = 12.0, 90.0  # points
LABEL_ROWS = (1, 0, 2, -1, 3, -2, 4, -3)  # below its spot, in the order in which they are tried
DOTS: Mapping[str, Any] = {"s": 46, "edgecolors": "black", "linewidths": 0.6, "zorder": 3}


def front_figure(
    front: ParetoFront,
    others: Sequence[FrontPoint],
    path: Path,
    baselines: Mapping[str, FrontPoint] | None = None,
    retrained: Sequence[Mapping[str, Any]] = (),
    plain: PlainViTs | None = None,
) -> list[Path]:
    """Write `draw_front` as PNG to `path` and as PDF, which is vectors, beside it; returns both files."""
    figure = draw_front(front, others, baselines or {}, retrained, plain)
    return [_save(figure, path.with_suffix(suffix)) for suffix in (".png", ".pdf")]


def draw_front(
    front: ParetoFront,
    others: Sequence[FrontPoint],
    baselines: Mapping[str, FrontPoint],
    retrained: Sequence[Mapping[str, Any]] = (),
    plain: PlainViTs | None = None,
) -> "Figure":
    """Draw what a front is ranked by against MACs and against latency.

    The front, with staircase and knee, is coloured by the other cost. Latency is drawn as the ratio to the largest
    architecture. In grey what was measured but is not on the front, known networks by name (`baselines`) as crosses,
    and with marks of their own those that were trained alone (`nas.runs.retrained_networks`). The plain ViTs are a
    dashed line.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(11, 5), dpi=150, layout=ConstrainedLayoutEngine(wspace=0.06))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, across, colour in ((left, MACS, LATENCY), (right, LATENCY, MACS)):
        _draw_panel(axes, front, others, baselines, retrained, plain.points if plain else (), across, colour)
    left.set_ylabel(axis_words(front.ranked_by))
    marks = sorted(zip(*left.get_legend_handles_labels(), strict=True), key=lambda mark: "split" in mark[1])
    if marks:
        handles, names = zip(*marks, strict=True)
        columns = len(marks) if len(marks) <= LEGEND_COLUMNS else -(-len(marks) // 2)
        figure.legend(handles, names, loc="outside upper center", ncols=columns, fontsize=8, frameon=False)
    count = len(front.points) + len(others)
    lines = [f"{len(front.points)} of {count} measured architectures are on the front"]
    for point in (*front.points, *others)[:1]:
        lines += conditions_lines(point.measurement.conditions)
    lines += plain_lines(plain, front) if plain else []
    lines += dict.fromkeys(_training_line(row) for row in retrained)
    figure.supxlabel("\n".join(lines), fontsize=8)
    return figure


def _save(figure: "Figure", path: Path) -> Path:
    content = io.BytesIO()
    undated = {"CreationDate": None} if path.suffix == ".pdf" else {}  # the same front, the same bytes
    figure.savefig(content, format=path.suffix[1:], metadata=undated)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, content.getvalue())
    return path


def _draw_panel(
    axes: "Axes",
    front: ParetoFront,
    others: Sequence[FrontPoint],
    baselines: Mapping[str, FrontPoint],
    retrained: Sequence[Mapping[str, Any]],
    plain: Sequence[FrontPoint],
    across: Metric,
    colour: Metric,
) -> None:
    up = front.ranked_by
    is_more = up.direction == "maximize"

    def values(points: Iterable[FrontPoint], metric: Metric) -> list[float]:
        return [point.value(metric) / factor[metric] for point in points]

    def note(point: FrontPoint, text: str, aside: tuple[float, float], **style: Any) -> None:
        spot = (values([point], across)[0], point.value(up))
        axes.annotate(text, spot, xytext=aside, textcoords="offset points", bbox=LABEL_BOX, **style)

    everything = [*front.points, *others, *baselines.values()]
    macs, prefix = unit_of([point.value(MACS) for point in everything])
    clock = front.clocks.get(LATENCY.name)
    factor = {up: 1.0, MACS: macs, LATENCY: clock or 1.0}
    _draw_retrained(axes, retrained, across, factor[across], up)
    batches = {str(point.measurement.conditions.latency_batch_size) for point in everything}
    unit = f"ms / {' or '.join(sorted(batches))} images"
    latency = f"latency ({ratio_words(clock, unit) if clock else unit})"
    titles = {MACS: f"{prefix}MACs / image", LATENCY: latency}
    axes.set_xlabel(titles[across])
    axes.grid(alpha=0.25, linewidth=0.6)
    if others:
        same = {replace(p.measurement.conditions, latency_stage="") for p in front.points}
        strange = any(replace(p.measurement.conditions, latency_stage="") not in same for p in others)
        label = "not on the front (other conditions)" if strange else "not on the front"
        axes.scatter(values(others, across), values(others, up), s=14, c=GREY, linewidths=0, label=label)
    points = [p for p in front.points if not math.isnan(p.value(across)) and not math.isnan(p.value(up))]
    if not points:
        axes.text(0.5, 0.5, f"no {across.label} on the front", transform=axes.transAxes, ha="center")
        return
    x, y = values(points, across), values(points, up)
    shades = values(points, colour)
    is_shaded = not any(map(math.isnan, shades))
    shading = {"c": shades, "cmap": COLOUR_MAP} if is_shaded else {"c": "tab:blue"}
    dots = axes.scatter(x, y, label="Pareto front", **DOTS, **shading)
    if is_shaded:
        axes.figure.colorbar(dots, ax=axes, label=titles[colour], pad=0.02)
    known = [p for p in plain if not math.isnan(p.value(across)) and not math.isnan(p.value(up))]
    style: dict[str, Any] = {"c": PLAIN, "ls": "--", "lw": 1.2, "marker": "s", "ms": 5, "mec": "0.2", "mew": 0.5}
    if known:
        spots = _staircase(values(known, across), values(known, up), is_more=is_more)
        axes.step(*spots, where="post", label="plain ViTs of this space", zorder=3.5, **style)
    crosses = [point for point in baselines.values() if not math.isnan(point.value(across) + point.value(up))]
    if crosses:
        mark: dict[str, Any] = {"c": "crimson", "ms": 8, "mew": 2, "ls": "none", "zorder": 4}
        axes.plot(values(crosses, across), values(crosses, up), "x", label="known designs", **mark)
    taken: list[tuple[float, float]] = []
    for name, point in baselines.items():
        if point in crosses:
            (place,) = values([point], across)
            aside, edge = (-7, "right") if place > sum(axes.get_xlim()) / 2 else (7, "left")
            below = _free_row(axes, (place, point.value(up)), taken)
            note(point, name, (aside, below), ha=edge, fontsize=8, color="crimson", zorder=4)
    limits = axes.get_xlim()
    best_x, best_y = _staircase(x, y, is_more=is_more)
    axes.step([*best_x, limits[1]], [*best_y, best_y[-1]], where="post", c="0.35", lw=1, zorder=2)
    axes.set_xlim(limits)
    knee = front.knee()
    if knee in points:
        arrow = {"arrowstyle": "-", "lw": 0.8}
        note(knee, f"knee {knee.digest[:8]}", (22, -30), fontsize=9, arrowprops=arrow, zorder=5)


def _free_row(axes: "Axes", spot: tuple[float, float], taken: list[tuple[float, float]]) -> float:
    """How far above or below a spot, in points, its label meets none of those `taken`, to which it is added."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    x, y = (float(pixels) * 72 / figure.dpi for pixels in axes.transData.transform(spot))
    rows = [-LABEL_ROW * number if number > 0 else -LABEL_ROW * number - LABEL_ROW / 2 for number in LABEL_ROWS]
    free = [r for r in rows if all(abs(x - a) > LABEL_WIDTH or abs(y + r - b) >= LABEL_ROW for a, b in taken)]
    taken.append((x, y + (free or rows)[0]))
    return (free or rows)[0]


def _draw_retrained(
    axes: "Axes", retrained: Sequence[Mapping[str, Any]], across: Metric, factor: float, by: Metric
) -> None:
    """Trained alone: filled diamonds on the search split, hollow ones beside them on the test split."""
    from matplotlib.transforms import offset_copy

    rows = [row for row in retrained if row.get(across.name) is not None and by.name in row]
    if not rows:
        return
    x = [row[across.name] / factor for row in rows]
    aside = offset_copy(axes.transData, axes.get_figure(root=True), x=TEST_ASIDE, units="points")
    for key, label, place, fill in (
        (by.name, "trained alone, search split", axes.transData, RETRAINED),
        (f"test_{by.name}", "trained alone, TEST split", aside, "white"),
    ):
        top1, spread = [row[key] for row in rows], [row[f"{key}_sd"] or 0.0 for row in rows]
        before = [row[key] if row[f"inherited_{key}"] is None else row[f"inherited_{key}"] for row in rows]
        axes.update_datalim([*zip(x, top1, strict=True), *zip(x, before, strict=True)])
        axes.vlines(x, before, top1, colors=RETRAINED, linewidths=0.8, linestyles=":", transform=place, zorder=3)
        mark: dict[str, Any] = {"mec": RETRAINED, "mfc": fill, "ms": 6, "zorder": 5, "transform": place}
        axes.errorbar(x, top1, yerr=spread, fmt="D", label=label, ecolor=RETRAINED, capsize=2.5, **mark)
        if key != by.name:
            axes.plot(x, before, "^", label="inherited, TEST split", c="none", **mark)
    axes.autoscale_view()


def _training_line(row: Mapping[str, Any]) -> str:
    start = {"scratch": "random", "inherited": "inherited", "timm": "timm's"}[row["from"]]
    count = len(row["seeds"])
    seeds = "1 seed" if count == 1 else f"mean and standard deviation of {count} seeds"
    return (
        f"trained alone: {plural(row['epochs'], 'epoch')} from {start} weights, {seeds}; "
        f"test split: {row['test_images']} images that no training and no search has seen, drawn beside"
    )


def _staircase(x: Sequence[float], y: Sequence[float], *, is_more: bool = True) -> tuple[list[float], list[float]]:
    """Best y at or below each cost, the most or the least: points of a two-dimensional front, cheapest first."""
    sign, corners = 1 if is_more else -1, list[tuple[float, float]]()
    for cost_value, height in sorted(zip(x, y, strict=True), key=lambda pair: (pair[0], -sign * pair[1])):
        if not corners or sign * height > sign * corners[-1][1]:
            corners.append((cost_value, height))
    return [corner[0] for corner in corners], [corner[1] for corner in corners]


def trust_figure(found: Mapping[str, Any], path: Path) -> Path:
    """Draw `trust.json` as a PNG and return its path: MACs in colours, bars reach from the worst seed to the best."""
    from matplotlib.figure import Figure

    rows = found["architectures"]
    alone = [row["stand_alone_top1"] for row in rows]
    inherited = [row["inherited_top1"] for row in rows]
    by_seed = [row["stand_alone_top1_by_seed"] for row in rows]
    spread = [[abs(end(values) - mean) for mean, values in zip(alone, by_seed, strict=True)] for end in (min, max)]
    factor, prefix = unit_of([row["macs"] for row in rows])
    figure = Figure(figsize=(6.4, 5.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.errorbar(alone, inherited, xerr=spread, fmt="none", ecolor="0.6", elinewidth=1, zorder=1)
    dots = axes.scatter(alone, inherited, c=[row["macs"] / factor for row in rows], cmap=COLOUR_MAP, **DOTS)
    figure.colorbar(dots, ax=axes, label=f"{prefix}MACs / image")
    axes.axline((alone[0], alone[0]), slope=1, color="0.5", lw=1, ls=":", zorder=0, label="equal")
    axes.set_xlim(*_limits([value for values in by_seed for value in values]))
    axes.set_ylim(*_limits(inherited))
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    axes.grid(alpha=0.25, linewidth=0.6)
    accuracy = found.get("accuracy", "top-1")
    axes.set_xlabel(f"{accuracy} trained alone (%), mean of {plural(found['num_seeds'], 'seed')}")
    axes.set_ylabel(f"{accuracy} inherited from the supernet (%)")
    tau = found["kendall_tau"]
    order = "no order" if tau is None else f"Kendall tau {with_interval(tau, found['kendall_tau_ci'])}"
    axes.set_title(f"{found['run']}: {order}", fontsize=11)
    words = (
        f"{len(rows)} architectures, {plural(found['epochs'], 'epoch')} each; {found['num_images']} images of the "
        f"{found['split']} split, {found['precision']}, supernet {found['supernet']}"
    )
    figure.supxlabel(words, fontsize=8)
    return _save(figure, path)


def _limits(values: list[float]) -> tuple[float, float]:
    margin = 0.06 * (max(values) - min(values)) or 1.0
    return min(values) - margin, max(values) + margin
