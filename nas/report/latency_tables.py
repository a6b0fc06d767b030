"""Tables of latencies: measured, profiled, from another device."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.base import plural, with_spread
from nas.report.table import Column, Table, columns_of
from nas.settings import OURS

if TYPE_CHECKING:
    from rich.console import Group

MARKS = "± 95 % interval of the median   ~ not known within 2 %   = intervals overlap"


def results_table(values: Mapping[str, Any]) -> Table:
    """`read_results` as a table."""
    repeat, both = ("-" if tau is None else f"{tau:.2f}" for tau in (values["repeat_tau"], values["tau_with_here"]))
    caption = [
        f"{values['runtime']}, batch of {values['batch']}, threads: {values['threads']}, {values['system']}",
        f"{MARKS}   order repeats with tau {repeat}, order of here and there: tau {both}",
    ]
    if values["missing"]:
        caption.append(f"{values['missing']} of the front were not measured there")
    headers = {"digest": "", "top-1 (%)": "{:.1f}", "MMACs": "{:.3g}", "here (ms)": "{:.3f}", "there (ms)": "{:.3f}"}
    return Table(
        title=f"{values['run']} on {values['device']}",
        columns=columns_of({**headers, "": ""}),
        rows=[
            (row["digest"], row["top1"], row["macs"] and row["macs"] / 1e6, row["latency_here_ms"], *_timed(row))
            for row in values["points"]
        ],
        caption=caption,
    )


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
        {point["digest"]: point["latency_ms"] / count for point in found["points"]}
        for found, count in zip(targets, per, strict=True)
    ]
    rows: list[tuple[str | float, ...]] = []
    for digest, first in times[0].items():
        rest = [own[digest] for own in times[1:]]
        rows.append((digest, first, *(value for own in rest for value in (own, own / first))))
    forms = [("digest", ""), (f"{names[0]} ({unit})", "{:.3f}")]
    for name in names[1:]:
        forms += [(f"{name} ({unit})", "{:.3f}"), ("of the first", "{:.2f}")]
    return Table(
        title="side by side",
        columns=[Column(*form, wraps=True) for form in forms],
        rows=rows,
        caption=["targets are timed one after another: these ratios hold less well than those within a table"],
    )


def _measured_table(values: Mapping[str, Any], found: Mapping[str, Any]) -> Table:
    load = found["machine"]["before"]["load_average"][0]
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
            f"{values['device']}, torch {found['torch']}, load average {load:.1f}{cores}",
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
