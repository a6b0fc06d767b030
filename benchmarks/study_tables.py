"""Tables and the figure of `study.py`: paired over seeds, with Student's intervals."""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
import tables as written
from mechanism_tables import interval
from scipy.stats import ttest_1samp
from study_networks import ARMS, Pick, finalist_pick, halves_picks, plain_shapes
from study_work import Place, opened

from nas.arch import cost
from nas.runs import RunDirectory
from nas.space import is_plain

ALL = "all"  # levels: the mean over those that both networks of a pair have
OURS = ("found", "finalists")
Result = dict[str, Any]
"""Of a place: an arm's network ("network"), what optimism is in a choice ("optimism"), or "equal time"."""
Results = dict[tuple[str, str, float, str, int], Result]
"""Networks by data, start, level, arm and seed."""


def place_results(
    lines: Sequence[Mapping[str, Any]], place: Place, picks: Sequence[Pick], asked: argparse.Namespace
) -> list[Result]:
    """All that the tables need of a place, as far as its trainings and tests have ended."""
    mine = [x for x in lines if (x["data"], x["seed"]) == (place.data, place.seed)]
    about = {"data": place.data, "seed": place.seed}
    found = [*_networks(mine, place, picks, asked), *_optimism(mine, place, asked), *_equal_time(mine, place, asked)]
    return [about | result for result in found]


def _networks(
    lines: Sequence[Mapping[str, Any]], place: Place, picks: Sequence[Pick], asked: argparse.Namespace
) -> Iterator[Result]:
    by_key = {
        (x["part"], x["name"], x["digest"], x["start"], x["epochs"]): x for x in lines if x["part"] in ("alone", "test")
    }
    times = {digest: ms for x in lines if x["part"] == "latency" for digest, ms in x["ms"].items()}
    space = opened(place.joint)[0].space
    for start, epochs in (("scratch", asked.alone_epochs), ("inherited", max(1, asked.alone_epochs // 3))):
        for pick in picks:
            name = "elastic" if (pick.arm, start) == ("elastic", "inherited") else "alone"
            rest = (name, pick.architecture.digest, start, epochs)
            if ("alone", *rest) in by_key and ("test", *rest) in by_key:
                yield {
                    "kind": "network",
                    "start": start,
                    "level": pick.level,
                    "arm": pick.arm,
                    "architecture": pick.architecture.to_dict(),
                    "plain": is_plain(pick.architecture),
                    "macs": cost.macs(pick.architecture, space.backbone),
                    "params": cost.params(pick.architecture, space.backbone),
                    "on_front": pick.on_front,
                    "search": by_key["alone", *rest]["top1"],
                    "test": by_key["test", *rest]["test_top1"],
                    **times.get(pick.architecture.digest, {}),
                }


def _optimism(lines: Sequence[Mapping[str, Any]], place: Place, asked: argparse.Namespace) -> Iterator[Result]:
    tests = {x["digest"]: x["test_top1"] for x in lines if x["part"] == "test" and x["start"] == "supernet"}
    for level in asked.levels:
        picks = halves_picks(RunDirectory.open(place.joint), level)
        gaps = {name: top1 - tests[point.digest] for name, (point, top1) in picks.items() if point.digest in tests}
        if len(gaps) == 3:
            fitted = (gaps["even"] + gaps["odd"]) / 2
            yield {"kind": "optimism", "level": level, "raw": gaps["whole"], "cross_fitted": fitted}


def _equal_time(lines: Sequence[Mapping[str, Any]], place: Place, asked: argparse.Namespace) -> Iterator[Result]:
    """The finalists as the product trained them against plain shapes by successive halving, in the same time."""
    tests = {(x["name"], x["digest"]): x["test_top1"] for x in lines if x["part"] == "test"}
    run, space, pairs = RunDirectory.open(place.joint), opened(place.joint)[0].space, []
    for level in asked.levels:
        pick = finalist_pick(run, level)
        ours = pick and tests.get(("finalists", pick.architecture.digest))
        shapes = [shape.digest for shape in plain_shapes(space, level, asked.rivals)]
        theirs = [t for shape in shapes if (t := tests.get(("halving", shape))) is not None]
        if pick and pick.on_front and ours is not None and theirs:
            pairs.append((ours, theirs[0]))
    for plan in [x for x in lines if x["part"] == "plan"] if pairs else ():
        yield {
            "kind": "equal time",
            "levels": len(pairs),
            "budget_s": plan["budget"],
            "halving_s": sum(x["seconds"] for x in lines if x["part"] == "halving"),
            "last_epochs": plan["epochs"],
            "product": mean(one for one, _ in pairs),
            "plain": mean(other for _, other in pairs),
        }


def networks_of(found: Iterable[Result]) -> Results:
    """The networks among what places found."""
    return {(x["data"], x["start"], x["level"], x["arm"], x["seed"]): x for x in found if x["kind"] == "network"}


def differences(results: Results, data: str, start: str, level: float | str, one: str, other: str) -> list[float]:
    """Test top-1 of one arm minus another's, a value a seed that has both; of `ALL`, means over the common levels."""
    by_seed: dict[int, list[float]] = {}
    for (d, s, at, arm, seed), found in results.items():
        rival = results.get((data, start, at, other, seed))
        if (d, s, arm) == (data, start, one) and level in (ALL, at) and rival is not None:
            by_seed.setdefault(seed, []).append(found["test"] - rival["test"])
    return [mean(values) for _, values in sorted(by_seed.items())]


def holm(p_values: Mapping[Any, float]) -> dict[Any, float]:
    """P values corrected for their number by Holm's method."""
    corrected, least = {}, 0.0
    for i, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        least = max(least, min(1.0, (len(p_values) - i) * p))
        corrected[key] = least
    return corrected


def primary(results: Results) -> dict[tuple[str, str], float]:
    """Corrected p of the primary comparisons: each of `OURS` against plain, from scratch, over all levels."""
    p_values = {}
    for data in dict.fromkeys(key[0] for key in results):
        for one in OURS:
            values = differences(results, data, "scratch", ALL, one, "plain")
            if len(values) > 1 and len(set(values)) > 1:
                p_values[data, one] = float(ttest_1samp(values, 0.0).pvalue)
    return holm(p_values)


def arm_rows(results: Results) -> list[dict[str, Any]]:
    """A row for each data set, start, level and arm, and one for all levels of an arm."""
    corrected, rows = primary(results), []
    starts = dict.fromkeys((data, start) for data, start, *_ in results)
    levels = sorted({level for _, _, level, _, _ in results})
    for (data, start), level, arm in ((each, at, arm) for each in starts for at in (*levels, ALL) for arm in ARMS):
        own = [f for (d, s, at, a, _), f in results.items() if (d, s, a) == (data, start, arm) and level in (ALL, at)]
        if not own:
            continue
        seeds = {key[4] for key in results if key[:2] == (data, start) and level in (ALL, key[2]) and key[3] == arm}
        row: dict[str, Any] = {"data": data, "start": start, "level": level, "arm": arm, "seeds": len(seeds)}
        row["networks"] = len(own)
        row["not_on_front"] = sum(not found["on_front"] for found in own)
        row["plain"] = sum(found["plain"] for found in own)
        row["mmacs"] = round(mean(found["macs"] for found in own) / 1e6, 2)
        row["kparams"] = round(mean(found["params"] for found in own) / 1e3, 1)
        for name in ("eager_b64", "ort_b1"):
            values = [found[name] for found in own if name in found]
            row[f"{name}_ms"] = round(mean(values), 3) if values else ""
        if level == ALL:  # levels differ more than seeds, so there is no interval over them all
            row |= {
                "test_top1": round(mean(found["test"] for found in own), 2),
                "test_top1_low": "",
                "test_top1_high": "",
            }
        else:
            row |= interval("test_top1", [found["test"] for found in own])
        row["search_minus_test"] = round(mean(found["search"] - found["test"] for found in own), 2)
        for one in OURS:
            values = [] if arm == one else differences(results, data, start, level, one, arm)
            row |= interval(f"{one}_minus", values) | {f"{one}_minus_pairs": len(values)}
            is_primary = (start, level, arm) == ("scratch", ALL, "plain")
            row[f"{one}_minus_p_holm"] = (
                round(corrected[data, one], 4) if is_primary and (data, one) in corrected else ""
            )
        rows.append(row)
    return rows


def optimism_rows(found: Sequence[Result]) -> list[dict[str, Any]]:
    """Search minus test top-1 of what the search split chose by inherited weights, raw and cross-fitted."""
    ours, rows = [x for x in found if x["kind"] == "optimism"], []
    for data, level in dict.fromkeys((x["data"], x["level"]) for x in ours):
        own = [x for x in ours if (x["data"], x["level"]) == (data, level)]
        row = {"data": data, "level": level, "seeds": len(own)} | interval("raw", [x["raw"] for x in own])
        rows.append(row | interval("cross_fitted", [x["cross_fitted"] for x in own]))
    return rows


def equal_time_rows(found: Sequence[Result]) -> list[dict[str, Any]]:
    """A row for each data set, means over seeds."""
    ours, rows = [x for x in found if x["kind"] == "equal time"], []
    for data in dict.fromkeys(x["data"] for x in ours):
        own = [x for x in ours if x["data"] == data]
        row = {"data": data, "seeds": len(own), "levels": round(mean(x["levels"] for x in own), 2)}
        row |= {key: round(mean(x[key] for x in own)) for key in ("budget_s", "halving_s", "last_epochs")}
        row |= {f"{key}_top1": round(mean(x[key] for x in own), 2) for key in ("product", "plain")}
        rows.append(row | interval("product_minus", [x["product"] - x["plain"] for x in own]))
    return rows


def figure(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Top-1 on the test split against MACs, from scratch, one panel a data set; bars are intervals over seeds."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in rows if row["start"] == "scratch" and row["level"] != ALL]
    names = list(dict.fromkeys(row["data"] for row in rows))
    drawing, axes = plt.subplots(1, len(names), figsize=(5.5 * len(names), 4), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        for i, arm in enumerate(ARMS):
            own = [row for row in rows if (row["data"], row["arm"]) == (name, arm)]
            if own:
                bars = [(row["test_top1_high"] or row["test_top1"]) - row["test_top1"] for row in own]
                macs = [row["mmacs"] * 1.01 ** (i - 2.5) for row in own]  # side by side
                axis.errorbar(macs, [row["test_top1"] for row in own], yerr=bars, marker="o", capsize=2, label=arm)
        axis.set(title=name, xscale="log", xlabel="MMACs", ylabel="top-1 on the test split, %")
    axes[0][0].legend()
    drawing.savefig(path, dpi=120)
    plt.close(drawing)


def tables(found: Sequence[Result], asked: argparse.Namespace) -> None:
    """Write what there is of what places found (`place_results`)."""
    how = (
        f"supernets {asked.epochs} epochs, {asked.trials} trials; alone {asked.alone_epochs} epochs, from inherited "
        f"weights a third; {', '.join(asked.set) or 'default recipe'}; {asked.device}; protocol: results/LOG.md"
    )
    if asked.images:
        how = f"the first {asked.images:,} images, a fifth of them the search split; {how}"
    if rows := arm_rows(networks_of(found)):
        notes = "test top-1 by level of MMACs and arm; differences in points, paired by seed, 95 % Student intervals"
        written.write_table("study", rows, f"{notes}; {how}")
        figure(rows, written.REFERENCE / "study.png")
    if rows := optimism_rows(found):
        notes = "search minus test top-1 of what was chosen by inherited weights, points"
        written.write_table("study_optimism", rows, f"{notes}; {how}")
    if rows := equal_time_rows(found):
        written.write_table("study_equal_time", rows, f"mean test top-1 over levels in equal total time; {how}")
