"""Tables of latencies: measured, profiled, from another device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.base import plural, with_spread
from nas.report.table import Column, Table, columns_of
from nas.settings import OURS

if TYPE_CHECKING:
    from rich.console import Group

MARKS = "± or (to): 95 % interval of the median   ~ not known within 2 %   = intervals overlap"


@dataclass(frozen=True, slots=True)
class Figure:
    """A median of timings, milliseconds, the 95 % interval of it where there is one, and whether it is noisy."""

    ms: float
    interval: tuple[float, float] | None
    noisy: bool

    @classmethod
    def of(cls, row: Mapping[str, Any], count: int = 1) -> "Figure":
        """Of a row of a table, by one of so many images."""
        low, high = row["latency_ci_ms"]
        return cls(row["latency_ms"] / count, (low / count, high / count), bool(row["noisy"]))

    @classmethod
    def here(cls, row: Mapping[str, Any]) -> "Figure | None":
        """Of this machine, beside another's; None: it was not measured."""
        ms, interval = row["latency_here_ms"], row["latency_here_ci_ms"]
        return None if ms is None else cls(ms, interval and tuple(interval), bool(row["noisy_here"]))

    def words(self) -> str:
        """Such as `1.500 ± 0.200 ~`."""
        return with_spread(self.ms, self.interval) + " ~" * self.noisy

    def over(self, other: "Figure | None") -> str:
        """The ratio to another, with what both intervals allow, such as `0.80 (0.70 to 0.95) ~`."""
        if other is None:
            return "-"
        ratio = f"{self.ms / other.ms:.2f}"
        if self.interval and other.interval:
            low, high = self.interval[0] / other.interval[1], self.interval[1] / other.interval[0]
            ratio += f" ({low:.2f} to {high:.2f})"
        return ratio + " ~" * (self.noisy or other.noisy)


def results_table(values: Mapping[str, Any]) -> Table:
    """`read_results` as a table."""
    repeat, both = ("-" if tau is None else f"{tau:.2f}" for tau in (values["repeat_tau"], values["tau_with_here"]))
    caption = [f"{MARKS}   order repeats with tau {repeat}, order of here and there: tau {both}"]
    if values["missing"]:
        caption.append(f"{values['missing']} of the front were not measured there")
    here, there = values["here"], {key: values[key] for key in ("runtime", "batch", "threads")}
    caption.append(f"there: {_setting(there)}, {values['device']}, {values['system']}")
    caption.append(f"here: {_setting(here)}, {here['device']}")
    if _setting(here) != _setting(there):
        caption.append("here and there are not set up alike: their times differ by that, too")
    is_one = here["batch"] == values["batch"]
    headers = {
        "digest": "",
        "top-1 (%)": "{:.1f}",
        "MMACs": "{:.3g}",
        _head("here", here): "",
        _head("there", there): "",
    }
    headers |= {"there / here": ""} if is_one else {}
    return Table(
        title=f"{values['run']} on {values['device']}",
        columns=columns_of({**headers, "": ""}),
        rows=[
            (
                row["digest"],
                row["top1"],
                row["macs"] and row["macs"] / 1e6,
                "-" if (own := Figure.here(row)) is None else own.words(),
                Figure.of(row).words(),
                *([Figure.of(row).over(own)] if is_one else []),
                "=" * bool(row["ties"]),
            )
            for row in values["points"]
        ],
        caption=caption,
    )


def _setting(where: Mapping[str, Any]) -> str:
    return f"{where['runtime']}, batch of {where['batch']}, threads: {where['threads']}"


def _head(place: str, where: Mapping[str, Any]) -> str:
    return f"{place} (ms),\n{where['runtime']}"


def profile_table(values: Mapping[str, Any]) -> Table:
    """`profile_space` as a table."""
    headers = {"predicted from": "", "mean error": "{:.1f} %", "tau": "{:.3f}"}
    return Table(
        title=f"{values['file']}: {plural(values['architectures'], 'architecture')} on {values['target']}, "
        f"batch of {values['batch']}, {values['image_size']} px",
        columns=columns_of(headers, wraps=True),
        rows=[
            ("all operations" if row["predictor"] == OURS else row["predictor"], row["mape_percent"], row["tau"])
            for row in values["predictors"]
        ],
        caption=[
            f"errors on architectures left out in turn; {values['device']}; {values['noisy']} not known within 2 %",
            "usable" if values["usable"] else "not used: " + "; ".join(values["losses"]),
        ],
    )


def measured_tables(values: Mapping[str, Any]) -> "Group":
    """`measure_source` as a table a target, and of several targets one with a column each."""
    from rich.console import Group

    tables = [_measured_table(values, found) for found in values["targets"]]
    return Group(*tables, *([_side_by_side(values["targets"])] if len(tables) > 1 else []))


def _side_by_side(targets: Sequence[Mapping[str, Any]]) -> Table:
    """The same networks on every target, and each target's share of the first one's time."""
    batches = [found["batch"] for found in targets]
    is_one = len(set(batches)) == 1
    per, unit = ([1] * len(batches), "ms") if is_one else (batches, "ms / image")
    names = [f"{found['runtime']}, {plural(found['threads'], 'thread')}" for found in targets]
    times = [
        {point["digest"]: Figure.of(point, count) for point in found["points"]}
        for found, count in zip(targets, per, strict=True)
    ]
    rows: list[tuple[str, ...]] = []
    for digest, first in times[0].items():
        rest = [own[digest] for own in times[1:]]
        rows.append((digest, first.words(), *(cell for own in rest for cell in (own.words(), own.over(first)))))
    headers = ["digest", f"{names[0]} ({unit})"]
    for name in names[1:]:
        headers += [f"{name} ({unit})", "of the first"]
    return Table(
        title="side by side",
        columns=[Column(header, wraps=True) for header in headers],
        rows=rows,
        caption=[
            "targets are timed one after another: these ratios hold less well than those within a table",
            "± or (to): 95 % interval of the median   ~ not known within 2 %   ratios with what both intervals allow",
        ],
    )


def _measured_table(values: Mapping[str, Any], found: Mapping[str, Any]) -> Table:
    before = found["machine"]["before"]
    load, count = before["load_average"][0], before.get("cores")
    of = f" on {plural(count, 'core')}" if count else ""
    torch = f", torch {found['torch']}" if found["target"].startswith("torch-") else ""  # of others the title has it
    cores = f", core {', '.join(map(str, found['cores']))}" if found["cores"] else ""
    order = "" if found["repeat_tau"] is None else f"   order repeats with tau {found['repeat_tau']:.2f}"
    headers = {"digest": "", "latency (ms)": "{}", "images/s": "{:,.0f}", "rounds": "{}", "": ""}
    rows = []
    for point in found["points"]:
        latency, doubts = _timed(point)
        ties = " ".join(digest[:6] for digest in point["ties"][:6]) + " ..." * (len(point["ties"]) > 6)
        rate = 1e3 * found["batch"] / point["latency_ms"]
        rows.append((point["digest"], latency, rate, point["rounds"], doubts, ties))
    return Table(
        title=f"{found['runtime']}, batch of {found['batch']}, {values['image_size']} px, "
        f"{plural(found['threads'], 'thread')}",
        columns=[*columns_of(headers), Column("ties with", wraps=True)],
        rows=rows,
        caption=[
            f"{values['device']}{torch}, load average {load:.1f}{of}{cores}",
            f"reference {found['reference_ms']:.3g} ms, in slow moments {found['reference_slow_ms']:.3g} ms: "
            "all times may be off by as much",
            MARKS + order,
            *([found["note"]] if found["note"] else []),
        ],
    )


def _timed(row: Mapping[str, Any]) -> tuple[str, str]:
    """Latency with its spread, and the marks of its doubts."""
    doubts = "~" * bool(row["noisy"]) + "=" * bool(row["ties"])
    return with_spread(row["latency_ms"], row["latency_ci_ms"]), doubts


def measured_rows(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`measure_source` flat: a row a target and model."""
    shared = ("target", "runtime", "batch", "threads", "precision", "repeat_tau")
    return [
        {**{key: found[key] for key in shared}, **point, "device": values["device"]}
        for found in values["targets"]
        for point in found["points"]
    ]
