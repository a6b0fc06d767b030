"""Numbers in words: units, counts, durations."""

import math
from collections.abc import Iterable, Sequence
from typing import Any


def duration(seconds: float) -> str:
    """Such as `0:42` or `1:02:03`."""
    whole = max(round(seconds), 0)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def plural(number: int, noun: str, several: str = "") -> str:
    """Such as `1 seed` or `1,200 seeds`; `several` where it takes more than an s."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def with_interval(value: float, interval: Sequence[float], form: str = ".2f") -> str:
    """A value and the ends of its interval, such as `0.61 [0.40, 0.70]`."""
    return f"{value:{form}} [{interval[0]:{form}}, {interval[1]:{form}}]"


def with_spread(value: float, interval: Sequence[float] | None, form: str = ".3f") -> str:
    """A value and how far the farther end of its interval is, where it has one, such as `1.500 ± 0.200`.

    Where that would reach zero, which the interval does not, or one end is, as printed, more than twice as far as the
    other, its ends: `1.500 (1.400 to 3.200)`.
    """
    if interval is None:
        return f"{value:{form}}"
    nearer, farther = sorted((interval[1] - value, value - interval[0]))
    is_lopsided = float(f"{farther:{form}}") > 2 * float(f"{nearer:{form}}")
    if is_lopsided or (farther >= value and interval[0] >= 0):
        return f"{value:{form}} ({interval[0]:{form}} to {interval[1]:{form}})"
    return f"{value:{form}} ± {farther:{form}}"


def unit_of(values: Iterable[float]) -> tuple[float, str]:
    """(factor, prefix) that suits the largest value: 1e9 `G`, 1e6 `M`, 1e3 `k` or 1 and no prefix."""
    largest = max((value for value in values if math.isfinite(value)), default=0.0)
    return next(((f, p) for f, p in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if largest >= f), (1.0, ""))


def unit_column(label: str, values: Sequence[float], like: Sequence[float] = ()) -> tuple[str, list[str]]:
    """Header with one unit, cells with one number of decimals: 3 digits of the largest, 2 of the least.

    The unit suits the values, or those that they are to be `like`.
    """
    factor, prefix = unit_of(like or values)
    sizes = [math.log10(value / factor) for value in values if math.isfinite(value) and value > 0] or [0.0]
    wanted = max(2 - math.floor(max(sizes)), 1 - math.floor(min(sizes)))
    decimals = 0 if factor == 1 else min(max(wanted, 0), 3)
    cells = ["-" if math.isnan(value) else f"{value / factor:.{decimals}f}" for value in values]
    return (f"{prefix}MACs" if label == "MACs" else f"{label} ({prefix})" if prefix else label), cells


def format_choices(values: Iterable[Any]) -> str:
    """Values as a person would list them: `[1, 2]`, strings without quotes."""
    return f"[{', '.join(str(value) for value in values)}]"
