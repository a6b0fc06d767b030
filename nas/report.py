"""Results for people: an architecture layer by layer, how a run stands, what an export wrote. Looks only."""

import csv
import itertools
import math
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas import cost
from nas.architecture import Architecture, AttentionKind, Backbone
from nas.front_point import FrontPoint
from nas.run_directory import RunDirectory
from nas.supernet_runs import all_trial_records, front_of, supernet_trials
from nas.trial import Conditions, TrialState

if TYPE_CHECKING:
    from rich.table import Table

GLYPHS = {"dynamic": "●", "hallucinated": "◐", "static": "■", "shared": "○", "linear": "◇"}
FEWER_TOKENS = "▾"
LEGEND = "  ".join(f"{glyph} {kind}" for kind, glyph in GLYPHS.items()) + f"  {FEWER_TOKENS} fewer tokens"

BAR_WIDTH = 6
RECENT_TRIALS = 50
PAUSE_FACTOR = 20  # a gap this many times the median one is a pause between sessions, not work


def layer_kind(architecture: Architecture, layer: int) -> str:
    """The kind of attention; `hallucinated` is dynamic with derived heads."""
    choice = architecture.layers[layer]
    derived = choice.num_hallucinated and choice.attention is AttentionKind.DYNAMIC
    return "hallucinated" if derived else choice.attention.value


def draw_layers(architecture: Architecture) -> str:
    """One glyph a layer, and a mark before a layer with fewer tokens than what arrives."""
    drawn = []
    for i, layer in enumerate(architecture.layers):
        drawn.append((FEWER_TOKENS if layer.reducer else "") + GLYPHS[layer_kind(architecture, i)])
    return "".join(drawn)


def conditions_lines(conditions: Conditions) -> list[str]:
    """Under which circumstances a table or figure holds: accuracy, latency, software."""
    c = conditions
    threads = f"{c.latency_threads} thread{'s' if c.latency_threads != 1 else ''}"
    return [
        f"top-1: {c.num_images} images of the {c.split} split, {c.precision}, weights {c.supernet}",
        f"latency: {c.target} on {c.device}, batch of {c.latency_batch_size}, {threads}, "
        f"{c.latency_stage} stage, torch {c.torch}",
    ]


def show_rows(shown: FrontPoint | Architecture, backbone: Backbone) -> list[dict[str, Any]]:
    """One architecture from input to output, JSON values: a row a layer, and one an operation outside them.

    `macs_share` is of the whole network; `latency_share` is null where the point's details lack it.
    """
    architecture = shown if isinstance(shown, Architecture) else shown.architecture
    details = {} if isinstance(shown, Architecture) else shown.details
    shares = details.get("layer_latency_share", [None] * architecture.depth)
    operations = cost.breakdown(architecture, backbone)
    total = sum(operation.macs for operation in operations)
    rows: list[dict[str, Any]] = []
    for operation in operations:
        if operation.layer is None:
            rows.append({"part": operation.operation, "layer": None, "macs": 0, "params": 0})
        elif rows[-1]["layer"] != operation.layer:
            i, choice = operation.layer, architecture.layers[operation.layer]
            rows.append(
                {
                    "part": f"layer {i}",
                    "layer": i,
                    "tokens": choice.num_tokens,
                    "reducer": choice.reducer.value if choice.reducer else None,
                    "attention": _operator_words(architecture, i),
                    "heads": choice.num_heads,
                    "mlp_ratio": choice.mlp_ratio,
                    "hidden": architecture.hidden_dim(i),
                    "rank": architecture.rank(i),
                    "macs": 0,
                    "params": 0,
                    "latency_share": shares[i],
                }
            )
        rows[-1]["macs"] += operation.macs
        rows[-1]["params"] += operation.params
    for row in rows:
        row["macs_share"] = row["macs"] / total
    return rows


def show_table(shown: FrontPoint | Architecture, backbone: Backbone, *, bars: bool = True) -> "Table":
    """`show_rows` as a table; without bars it fits 80 columns as far as its words do."""
    from rich import box
    from rich.table import Table

    architecture = shown if isinstance(shown, Architecture) else shown.architecture
    rows = show_rows(shown, backbone)
    macs_header, macs = unit_column(
        "MACs", [row["macs"] for row in rows] + [sum(row["macs"] for row in rows)]
    )
    params_header, params = unit_column(
        "params", [row["params"] for row in rows] + [sum(r["params"] for r in rows)]
    )
    title = f"{architecture.digest}: {architecture.depth} layers, {architecture.embed_dim} channels"
    table = Table(title=title, box=box.SIMPLE_HEAD, caption=LEGEND, caption_justify="left", show_footer=True)
    if not bars:
        table.padding = (0, 0)
    table.add_column("", "total", no_wrap=True)
    for header in ("tokens", "attention"):
        table.add_column(header, no_wrap=True)
    numbers = [("heads", ""), ("mlp", ""), ("hidden", ""), (macs_header, macs[-1]), ("share", "")]
    for header, footer in [*numbers, (params_header, params[-1]), ("latency", "")]:
        table.add_column(header, footer, justify="right", no_wrap=True)
    for row, macs_cell, params_cell in zip(rows, macs, params, strict=False):
        inside = [""] * 5
        if row["layer"] is not None:
            arrow = f" {FEWER_TOKENS} {row['reducer']}" if row["reducer"] else ""
            glyph = GLYPHS[layer_kind(architecture, row["layer"])]
            hidden = str(row["hidden"]) + (f" (rank {row['rank']})" if row["rank"] else "")
            sizes = [str(row["heads"]), f"{row['mlp_ratio']:g}", hidden]
            inside = [f"{row['tokens']}{arrow}", f"{glyph} {row['attention']}", *sizes]
        shares = [_share(row.get(name), has_bar=bars) for name in ("macs_share", "latency_share")]
        table.add_row(row["part"], *inside, macs_cell, shares[0], params_cell, shares[1])
    return table


def status_dict(run: RunDirectory, now: float | None = None) -> dict[str, Any]:
    """How a run stands: JSON of `status --format json`; results/README.md explains the keys.

    Args:
        run: The run.
        now: Unix time to reckon from, seconds; the present by default.

    Raises:
        RunError: The run is damaged.
    """
    manifest, records, is_live = run.manifest, all_trial_records(run), run.is_locked()
    stage = manifest["stage"]
    counts = {state.value: 0 for state in TrialState}
    for record in records:
        counts[record["state"]] += 1
    if not is_live:
        counts["running"] = 0  # the writer is gone, and what was in flight with it
    measured = counts["complete"] + counts["failed"] + counts["pruned"]
    finished = (r["finished"] for r in records if r["finished"] and r["state"] != "repeated")
    per_minute = _throughput(sorted(finished))
    front = front_of(run.path) if "objectives" in manifest else None
    supernets = Counter(trial.state for trial in supernet_trials(run))
    left: list[float] = []
    budget = manifest.get("budget") or {}
    if budget.get("num_trials") is not None and per_minute:
        left.append(max(budget["num_trials"] - measured, 0) / per_minute)
    if budget.get("deadline") is not None:
        left.append(max(budget["deadline"] - (time.time() if now is None else now), 0.0) / 60)
    return {
        "schema_version": 1,
        "run": run.name,
        "state": stage if is_live or stage in ("created", "finished") else "interrupted",
        "stage": stage,
        "training": _last_of_training(run),
        "trials": counts,
        "num_trials": budget.get("num_trials"),
        "front_size": None if front is None else len(front.points),
        "hypervolume": None if front is None else front.hypervolume(),
        "throughput_per_minute": per_minute,
        "minutes_left": 0.0 if stage == "finished" else min(left, default=None),
        **({"supernets": dict(supernets)} if supernets else {}),
    }


def _last_of_training(run: RunDirectory) -> dict[str, float] | None:
    """The last row of the training's log."""
    if not run.training_log.exists():
        return None
    with run.training_log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: float(value) for name, value in rows[-1].items()} if rows else None


def status_table(status: Mapping[str, Any]) -> "Table":
    """`status_dict` as a table of two columns."""
    from rich import box
    from rich.table import Table

    def number(value: float | None, unit: str, digits: int) -> str:
        return "not known yet" if value is None else f"{value:.{digits}f}{unit}"

    table = Table(title=status["run"], box=box.SIMPLE, show_header=False)
    asked = f" of {status['num_trials']}" if status["num_trials"] is not None else ""
    table.add_row(
        "state", status["state"] + (f" while {status['stage']}" if status["state"] == "interrupted" else "")
    )
    if (training := status["training"]) is not None:
        table.add_row(
            "supernet",
            f"step {training['step']:.0f} of {training['steps']:.0f}, loss largest {training['loss_largest']:.2f} "
            f"smallest {training['loss_smallest']:.2f} random {training['loss_random']:.2f} nats, "
            f"{training['images_per_second']:.0f} images/s",
        )
    if "supernets" in status:
        table.add_row("supernets", ", ".join(f"{n} {state}" for state, n in status["supernets"].items()))
    table.add_row("trials complete", f"{status['trials']['complete']}{asked}")
    for name, count in status["trials"].items():
        if name != "complete" and count:
            table.add_row(f"trials {name}", str(count))
    table.add_row(
        "front", "no trial yet" if status["front_size"] is None else f"{status['front_size']} architectures"
    )
    table.add_row("hypervolume", number(status["hypervolume"], "", 4))
    table.add_row("throughput", number(status["throughput_per_minute"], " trials/min", 1))
    table.add_row("time left", number(status["minutes_left"], " min", 1))
    return table


def export_table(bundle: Mapping[str, Any]) -> "Table":
    """What an export wrote (`ExportReport.to_dict`), file by file."""
    from rich.table import Table

    caption = "differences are the largest between logits before and after reloading, batches of "
    batches = ", ".join(bundle["files"][0]["max_delta"]) if bundle["files"] else ""
    table = Table(title=f"{bundle['digest']} in {bundle['directory']}", caption=caption + batches)
    for header in ("format", "file"):
        table.add_column(header)
    for header in ("size (kB)", "difference", "time (s)"):
        table.add_column(header, justify="right")
    for file in bundle["files"]:
        delta = max(file["max_delta"].values(), default=0.0)
        size, seconds = f"{file['size_bytes'] / 1e3:,.0f}", f"{file['seconds']:.1f}"
        table.add_row(file["format"], file["file"], size, f"{delta:.1e}" if delta else "0", seconds)
    return table


def unit_of(values: Iterable[float]) -> tuple[float, str]:
    """(factor, prefix) that suits the largest value: 1e9 `G`, 1e6 `M`, 1e3 `k` or 1 and no prefix."""
    largest = max((value for value in values if math.isfinite(value)), default=0.0)
    return next(((f, p) for f, p in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if largest >= f), (1.0, ""))


def unit_column(label: str, values: Sequence[float]) -> tuple[str, list[str]]:
    """Header with one unit, cells with one number of decimals: 3 digits of the largest, 2 of the least."""
    factor, prefix = unit_of(values)
    sizes = [math.log10(value / factor) for value in values if math.isfinite(value) and value > 0] or [0.0]
    wanted = max(2 - math.floor(max(sizes)), 1 - math.floor(min(sizes)))
    decimals = 0 if factor == 1 else min(max(wanted, 0), 3)
    cells = ["-" if math.isnan(value) else f"{value / factor:.{decimals}f}" for value in values]
    return (f"{prefix}MACs" if label == "MACs" else f"{label} ({prefix})" if prefix else label), cells


def _operator_words(architecture: Architecture, layer: int) -> str:
    choice = architecture.layers[layer]
    words = choice.attention.value
    if choice.attention is AttentionKind.SHARED:
        kinds = [earlier.attention for earlier in architecture.layers[:layer]]
        words += f" from {max(i for i, kind in enumerate(kinds) if kind is AttentionKind.DYNAMIC)}"
    if choice.hallucination is not None:
        words += f", {choice.num_hallucinated} of {choice.num_heads} {choice.hallucination.value}"
    return words


def _bar(share: float, width: int = BAR_WIDTH) -> str:
    """A share in [0, 1] as a bar of eighths of a character."""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def _share(share: float | None, *, has_bar: bool) -> str:
    if share is None:
        return "-"
    percent = f"{100 * share:4.1f} %"
    return f"{_bar(share):{BAR_WIDTH}} {percent}" if has_bar else percent


def _throughput(finished: Sequence[float]) -> float | None:
    """Trials per minute over the recent ones, pauses between sessions left out; None before the third."""
    recent = sorted(finished)[-RECENT_TRIALS:]
    gaps = [later - earlier for earlier, later in itertools.pairwise(recent)]
    if len(gaps) < 2:
        return None
    typical = statistics.median(gaps)
    worked = sum(gap for gap in gaps if gap <= PAUSE_FACTOR * typical) if typical > 0 else sum(gaps)
    counted = sum(gap <= PAUSE_FACTOR * typical for gap in gaps) if typical > 0 else len(gaps)
    return 60 * counted / worked if worked > 0 else None
