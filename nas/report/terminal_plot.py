"""Small plots of characters: a front on a terminal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nas.base import LATENCY, MACS, plural, unit_of
from nas.report.front_table import axis_words, ratio_words
from nas.runs import FrontPoint, ParetoFront
from nas.space import is_plain

WIDTH, HEIGHT = 56, 12


@dataclass(frozen=True, slots=True)
class Series:
    """Points (across, up), in the units that the axes name, drawn as one character; later series cover earlier."""

    sign: str
    points: Sequence[tuple[float, float]]


def scatter(series: Sequence[Series], across: str, up: str, *, width: int = WIDTH, height: int = HEIGHT) -> str:
    """Draw points as text, with the least and greatest value at the ends of both axes.

    Costs that spread over more than a power of ten are drawn on a logarithmic axis, which its name then says. Values
    that are not finite are left out; of none the text is empty. `across` and `up` are names and units of the axes.
    """
    spots = [(one.sign, *spot) for one in series for spot in one.points if all(map(math.isfinite, spot))]
    if not spots:
        return ""
    _, xs, ys = zip(*spots, strict=True)
    lowest_x, highest_x, lowest_y, highest_y = min(xs), max(xs), min(ys), max(ys)
    is_log = lowest_x > 0 and highest_x > 10 * lowest_x
    grid = [[" "] * width for _ in range(height)]
    for sign, x, y in spots:
        column = _cell(x, lowest_x, highest_x, width, is_log=is_log)
        grid[height - 1 - _cell(y, lowest_y, highest_y, height)][column] = sign
    labels = {0: f"{highest_y:.4g}", height - 1: f"{lowest_y:.4g}"}
    if highest_y <= lowest_y:
        labels = {height - 1 - height // 2: f"{lowest_y:.4g}"}  # where the points are
    margin = max(len(text) for text in labels.values())
    lines = [f"{labels.get(i, ''):>{margin}} │{''.join(row).rstrip()}" for i, row in enumerate(grid)]
    ends = f"{lowest_x:.4g}", f"{highest_x:.4g}"
    name = across + (", logarithmic" if is_log else "")
    if highest_x <= lowest_x:
        below = [" " * (width // 2) + ends[0], name.center(width)]
    elif len(name) + 4 <= (between := width - len(ends[0]) - len(ends[1])):
        below = [ends[0] + name.center(between) + ends[1]]
    else:
        below = [ends[0] + " " * between + ends[1], name.center(width)]
    frame = [f"{' ' * margin} └{'─' * width}", *(f"{' ' * margin}  {text.rstrip()}" for text in below)]
    return "\n".join([f"{' ' * margin} {up}", *lines, *frame])


def _cell(value: float, low: float, high: float, cells: int, *, is_log: bool = False) -> int:
    if high <= low:
        return cells // 2
    if is_log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return min(round((value - low) / (high - low) * (cells - 1)), cells - 1)


def front_plots(front: ParetoFront, others: Sequence[FrontPoint], whole: ParetoFront) -> list[str]:
    """What a front is ranked by against MACs, and against latency, one a plot.

    Drawn are the front, all of `whole` or a part, its knee, and what is not on it.

    Plain ViTs that are not on the front have a sign of their own.

    `others` are by the clocks of the front (`RunResults.others`); where those are known latency is drawn as a ratio.
    """
    knee, up = whole.knee().digest, whole.ranked_by
    macs_factor, prefix = unit_of([point.value(MACS) for point in whole.points])
    batch = whole.points[0].measurement.conditions.latency_batch_size
    clock, unit = whole.clocks.get(LATENCY.name), f"ms / {plural(batch, 'image')}"
    plots = []
    for metric, factor, name in (
        (MACS, macs_factor, f"{prefix}MACs per image"),
        (LATENCY, clock or 1.0, f"latency ({ratio_words(clock, unit) if clock else unit})"),
    ):
        best = [point for point in front.points if point.digest == knee]
        plain = [point for point in others if is_plain(point.architecture)]
        drawn = {"·": [*others, *whole.points], "□": plain, "●": front.points, "★": best}
        series = [
            Series(sign, [(point.value(metric) / factor, point.value(up)) for point in points])
            for sign, points in drawn.items()
        ]
        plots.append(scatter(series, name, axis_words(up)))
    return [plot for plot in plots if plot]
