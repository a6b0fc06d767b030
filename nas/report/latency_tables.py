"""Tables of latencies: measured, profiled, from another device."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table
from nas.settings import OURS

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


def results_table(values: dict[str, Any]) -> "Table":
    """`read_results` as a table."""
    from rich import box
    from rich.table import Table

    def said(tau: float | None) -> str:
        return "-" if tau is None else f"{tau:.2f}"

    missing = f"\n{values['missing']} of the front were not measured there" if values["missing"] else ""
    table = Table(
        title=f"{values['run']} on {values['device']}",
        caption=f"{values['runtime']}, batch of {values['batch']}, threads: {values['threads']}, {values['system']}\n"
        f"± 95 % interval of the median   ~ not known within 2 %   = intervals overlap   "
        f"order repeats with tau {said(values['repeat_tau'])}, order of here and there: tau "
        f"{said(values['tau_with_here'])}{missing}",
        box=box.SIMPLE_HEAD,
        min_width=96,
        caption_justify="left",
    )
    table.add_column("digest", no_wrap=True)
    for header in ("top-1 (%)", "MMACs", "here (ms)", "there (ms)"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in values["points"]:
        low, high = row["latency_ci_ms"]
        spread = max(high - row["latency_ms"], row["latency_ms"] - low)
        here = "-" if row["latency_here_ms"] is None else f"{row['latency_here_ms']:.3f}"
        table.add_row(
            row["digest"],
            "-" if row["top1"] is None else f"{row['top1']:.1f}",
            "-" if row["macs"] is None else f"{row['macs'] / 1e6:.3g}",
            here,
            f"{row['latency_ms']:.3f} ± {spread:.3f}",
            ("~" if row["noisy"] else "") + ("=" if row["ties"] else ""),
        )
    return table


def profile_table(values: dict[str, Any]) -> "Table":
    """`profile_space` as a table."""
    from rich import box
    from rich.table import Table

    verdict = "usable" if values["usable"] else "not used: " + "; ".join(values["losses"])
    table = Table(
        title=f"{values['file']}: {values['architectures']} architectures on {values['target']}, "
        f"batch of {values['batch']}, {values['image_size']} px",
        caption=f"errors on architectures left out in turn; {values['device']}; "
        f"{values['noisy']} not known within 2 %\n{verdict}",
        box=box.SIMPLE_HEAD,
        min_width=96,
        caption_justify="left",
    )
    table.add_column("predicted from")
    table.add_column("mean error", justify="right")
    table.add_column("tau", justify="right")
    for row in values["predictors"]:
        name = "all operations" if row["predictor"] == OURS else row["predictor"]
        table.add_row(name, f"{row['mape_percent']:.1f} %", f"{row['tau']:.3f}")
    return table


def measured_tables(values: dict[str, Any]) -> "Group":
    """`measure_source` as a table a target."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    tables = []
    for found in values["targets"]:
        threads = f"{found['threads']} thread{'s' if found['threads'] != 1 else ''}"
        load = found["machine"]["before"]["load_average"][0]
        cores = f", core {', '.join(map(str, found['cores']))}" if found["cores"] else ""
        order = "" if found["repeat_tau"] is None else f"   order repeats with tau {found['repeat_tau']:.2f}"
        table = Table(
            title=f"{found['runtime']}, batch of {found['batch']}, {values['image_size']} px, {threads}",
            caption=f"{values['device']}, torch {found['torch']}, load average {load:.1f}{cores}\n"
            f"reference {found['reference_ms']:.3g} ms, in slow moments {found['reference_slow_ms']:.3g} ms: "
            "all times may be off by as much\n"
            f"± 95 % interval of the median   ~ not known within 2 %   = intervals overlap{order}"
            + (f"\n{found['note']}" if found["note"] else ""),
            box=box.SIMPLE_HEAD,
            min_width=96,
            caption_justify="left",
        )
        table.add_column("digest", no_wrap=True)
        for header in ("latency (ms)", "images/s", "rounds"):
            table.add_column(header, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("ties with", max_width=60)
        for point in found["points"]:
            low, high = point["latency_ci_ms"]
            spread = max(high - point["latency_ms"], point["latency_ms"] - low)
            mark = ("~" if point["noisy"] else "") + ("=" if point["ties"] else "")
            ties = " ".join(digest[:6] for digest in point["ties"][:6]) + (
                " ..." if len(point["ties"]) > 6 else ""
            )
            rate = 1e3 * found["batch"] / point["latency_ms"]
            table.add_row(
                point["digest"],
                f"{point['latency_ms']:.3f} ± {spread:.3f}",
                f"{rate:,.0f}",
                str(point["rounds"]),
                mark,
                ties,
            )
        tables.append(table)
    return Group(*tables)


def measured_rows(values: dict[str, Any]) -> list[dict[str, Any]]:
    """`measure_source` flat: a row a target and model."""
    shared = ("target", "runtime", "batch", "threads", "precision", "repeat_tau")
    return [
        {**{key: found[key] for key in shared}, **point, "device": values["device"]}
        for found in values["targets"]
        for point in found["points"]
    ]
