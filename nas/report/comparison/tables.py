"""`compare_runs` for people."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from nas.base import metric_named, plural, unit_of
from nas.report.comparison.values import BY_SEED, RANKED
from nas.report.table import Cell, Column, Table, columns_of
from nas.report.terminal_plot import Series, scatter

if TYPE_CHECKING:
    from rich.console import Group

WORDS = {("other_conditions", RANKED): "search split, other images"}
"""What to say instead of a key, by table and key."""
SIGNS = "●○■□▲△◆◇"


def compare_tables(found: Mapping[str, Any]) -> "Group":
    """`compare_runs` for people: tables of runs, groups and budgets, a plot, and what was different."""
    from rich.console import Group
    from rich.text import Text

    runs = found["runs"]
    is_pair = "groups" not in found
    names = [run["run"] for run in runs]
    # Of a pair each run is a column of its own; of more runs each group is, with the median of its runs.
    columns = [(name, [i]) for i, name in enumerate(names)] if is_pair else list(_members(found))
    place = {i: number for number, (_, members) in enumerate(columns) for i in members}
    heads = [name for name, _ in columns]
    rows_of = {key: list(_rows(found[key], columns, is_pair=is_pair)) for key in ("other_conditions", "differences")}
    reference = ", ".join(f"{o['name']} {o['reference']:.4g} {o['unit']}" for o in found["objectives"])
    headers = {"run": "", "front": "{}", "hypervolume": "{:.4f}", "best top-1 (%)": "{:.1f}", "knee": "{}"}
    balanced = [r.get("best_balanced_top1") for r in runs]
    if any(value is not None for value in balanced):
        headers["best balanced top-1 (%)"] = "{:.1f}"
    rows = [
        (r["run"], r["front_size"], r["hypervolume"], r["best_top1"], r["knee"][:8], value)[: len(headers)]
        for r, value in zip(runs, balanced, strict=True)
    ]
    shared = plural(found["shared_architectures"], "architecture")
    table = Table(
        title=f"{' and '.join(names)}: {shared} on both fronts" if is_pair else f"{shared} on all fronts",
        columns=columns_of(headers if is_pair else {"group": "", **headers}, wraps=True),
        rows=rows if is_pair else [(heads[place[i]], *row) for i, row in enumerate(rows)],
        caption=[
            f"hypervolume with one reference: {reference}",
            f"of all trials the first {found['shared_first_trials']} propose the same",
            *(f"{row['name']} is left out of it: {row['reason']}" for row in found["left_out"]),
        ],
    )
    parts: list[Any] = [table, *([] if is_pair else _group_tables(found))]
    by = metric_named(found["accuracy"])
    factor, prefix = unit_of(budget["max_macs"] for budget in found["budgets"])
    if found["budgets"]:
        forms = [(f"{prefix}MACs", "{:.3g}"), *((name, "{:.1f}") for name in heads)]
        best: list[tuple[Cell, ...]] = []
        for budget in found["budgets"]:
            values = budget[f"best_{by.name}"]
            medians = [statistics.median(values[i] for i in members) for _, members in columns]
            best.append((budget["max_macs"] / factor, *medians))
        lines = []
        if len(columns) == 2 and not rows_of["other_conditions"]:
            forms.append((f"{heads[1]} minus {heads[0]}", "{:+.1f}"))
            differences = [_difference(budget, by.name, columns) for budget in found["budgets"]]
            best = [(*row, difference) for row, difference in zip(best, differences, strict=True)]
            if any(isinstance(difference, str) for difference in differences):
                lines = ["± half of the 95 % interval, as if the images were others for each: on the same it is less"]
        title = f"best {by.label} (%) within a budget of MACs per image"
        title += "" if len(columns) == len(runs) else ", median of the group"
        headings = [Column(*form, wraps=True) for form in forms]
        parts.append(Table(title=title, columns=headings, rows=best, caption=lines))
    signs = [SIGNS[i % len(SIGNS)] for i in range(len(columns))]
    series = [
        Series(signs[place[i]], [(p["macs"] / factor, p[by.name]) for p in run["points"] if None not in p.values()])
        for i, run in enumerate(runs)
    ]
    parts.append(Text(scatter(series, f"{prefix}MACs per image", f"{by.label} (%)")))
    parts.append(Text("   ".join(f"{sign} {name}" for sign, name in zip(signs, heads, strict=True)), "dim"))
    for key, title, at in (
        ("other_conditions", "measured under other conditions: their numbers must not be compared", 0),
        ("differences", "what was different", len(parts) + 1),
    ):
        different = [(WORDS.get((key, name), name), *cells) for name, *cells in rows_of[key]]
        if different:
            heading = [Column(header, wraps=True) for header in ("", *heads)]
            parts.insert(at, Table(title=title, columns=heading, rows=different))
    return Group(*parts)


def _rows(
    different: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, list[int]]], *, is_pair: bool
) -> Iterator[tuple[str, ...]]:
    """What was different, a cell a column; of groups not what the seed brings about."""
    for row in different:
        values = [[row["values"][i] for i in members] for _, members in columns]
        is_apart = row["key"] == RANKED and any(not set(one) & set(other) for one, other in combinations(values, 2))
        if is_pair or is_apart or row["key"].partition(".")[0] not in BY_SEED:
            yield row["key"], *map(_said, values)


def _difference(budget: Mapping[str, Any], name: str, columns: Sequence[tuple[str, list[int]]]) -> Cell:
    """The second column minus the first, with half of its interval where each is a run and both values have one."""
    values, intervals = budget[f"best_{name}"], budget[f"best_{name}_ci"]
    one, other = (statistics.median(values[i] for i in members) for _, members in columns)
    pairs = [intervals[i] for _, members in columns for i in members]
    if len(pairs) > 2 or None in pairs:
        return float(other - one)
    return f"{other - one:+.1f} ± {math.hypot(*((high - low) / 2 for low, high in pairs)):.1f}"


def _said(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys("-" if value is None else str(value) for value in values))


def _members(found: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
    """Each group, and the places of its runs."""
    names = [run["run"] for run in found["runs"]]
    for group in found["groups"]:
        yield group["group"], [i for i, name in enumerate(names) if name in group["runs"]]


def _group_tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """The hypervolume of each group over its seeds, and the differences of groups, seed by seed."""
    if all(len(group["runs"]) == 1 for group in found["groups"]):
        return
    headers = {"group": "", "seeds": "", "median": "{:.4f}", "least to most": "", "mean, 95 % interval": ""}
    yield Table(
        title="hypervolume over the seeds of a group: runs that differ by the seed alone",
        columns=columns_of(headers, wraps=True),
        rows=[
            (
                group["group"],
                ", ".join(map(str, group["seeds"])),
                group["hypervolume_median"],
                " to ".join(f"{value:.4f}" for value in group["hypervolume_range"]),
                _with_ends(group["hypervolume_mean"], group["hypervolume_mean_ci"], ".4f"),
            )
            for group in found["groups"]
        ],
    )
    if found["pairs"]:
        headers = {"groups": "", "seeds in both": "{}", "median": "{:+.4f}", "mean, 95 % interval": "", "more on": ""}
        yield Table(
            title="difference of hypervolume, seed by seed: the second group less the first",
            columns=columns_of(headers, wraps=True),
            rows=[
                (
                    " to ".join(pair["groups"]),
                    len(pair["seeds"]),
                    pair["median_difference"],
                    _with_ends(pair["mean_difference"], pair["mean_difference_ci"], "+.4f"),
                    f"{pair['second_is_better']} of {len(pair['seeds'])}",
                )
                for pair in found["pairs"]
            ],
        )


def _with_ends(value: float, ends: Sequence[float] | None, form: str) -> str:
    return f"{value:{form}}" if ends is None else f"{value:{form}}, {ends[0]:{form}} to {ends[1]:{form}}"
