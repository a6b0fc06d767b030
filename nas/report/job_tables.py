"""Tables of what a long command found: export, forecast, trust, retrain, rank-layers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


from nas.base import duration, unit_of
from nas.runs import (
    BASELINES,
    CONFIDENCE,
    RESAMPLES,
)


def trust_table(found: Mapping[str, Any]) -> "Table":
    """`trust.json` as a table: what ranks, and how well."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = (
        f"{found['run']}: order of inherited and of stand-alone top-1, "
        f"{found['num_architectures']} architectures, {_count(found['num_seeds'], 'seed')}"
    )
    table = Table(title=title, box=box.SIMPLE_HEAD, caption_justify="left")
    table.add_column("ranked by", no_wrap=True)
    for header in ("Kendall tau", "Spearman rho", "inherited is above it in tau by"):
        table.add_column(header, no_wrap=True)
    table.add_row("inherited top-1", _cell(found, "kendall_tau"), _cell(found, "spearman_rho"), "")
    table.add_section()
    for name, label in BASELINES.items():
        keys = ("kendall_tau", "spearman_rho", "tau_above_it")
        table.add_row(label, *(_cell(found["baselines"][name], key) for key in keys))
    table.add_row("another seed (ceiling)", _cell(found, "seed_to_seed_tau"), "", "")
    lines = [
        found["verdict"],
        f"gap: inherited is {_cell(found, 'gap_points')} points of top-1 from stand-alone, on average",
        f"top-1: {found['num_images']} images of the {found['split']} split, {found['precision']}; "
        f"{found['epochs']} epochs alone, weights of the supernet {found['supernet']}",
        f"intervals hold {100 * CONFIDENCE:g} % of {RESAMPLES} resamples of the architectures; "
        "differences are taken in each",
    ]
    if found["failed"]:
        lines.append(f"{_count(len(found['failed']), 'training')} failed; their architectures are left out")
    table.caption = Text("\n".join(lines))
    return table


def _cell(values: Mapping[str, Any], key: str) -> str:
    if values[key] is None:
        return "-"
    low, high = values[f"{key}_ci"]
    return f"{values[key]:.2f} [{low:.2f}, {high:.2f}]"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


SPLITS = {"top1": "search", "test_top1": "test"}


def networks(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The picked architecture, and the baseline where there is one."""
    return [found[name] for name in ("picked", "baseline") if found[name] is not None]


def training_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a training, for `--format csv`."""
    kept = ("name", "digest", "macs", "params", "inherited_top1", "inherited_test_top1")
    return [
        {
            **{key: row[key] for key in kept},
            "seed": seed,
            **{key: row[f"{key}_by_seed"][i] for key in SPLITS},
        }
        for row in networks(found)
        for i, seed in enumerate(row["seeds"])
    ]


def retrain_table(found: Mapping[str, Any]) -> "Table":
    """What `retrain` found as a table: inherited and retrained top-1 on both splits."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = networks(found)
    factor, prefix = unit_of([row["macs"] for row in rows])
    words = {"scratch": "random weights", "inherited": "the inherited weights"}
    table = Table(title=f"{found['run']}: {found['picked']['digest']} trained alone", box=box.SIMPLE_HEAD)
    table.caption_justify = "left"
    table.add_column("architecture", no_wrap=True)
    for header in (f"{prefix}MACs", "parameters"):
        table.add_column(header, justify="right", no_wrap=True)
    for split in SPLITS.values():
        for way in ("inherited", "trained alone"):
            table.add_column(f"{split} top-1 %,\n{way}", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row['name']} ({row['digest']})",
            f"{row['macs'] / factor:.3g}",
            f"{row['params']:,}",
            *(text for key in SPLITS for text in (f"{row[f'inherited_{key}']:.2f}", _spread(row, key))),
        )
    seeds = f"{found['num_seeds']} seed{'s' * (found['num_seeds'] != 1)}"
    lines = [
        f"alone: from {words[found['from']]}, {found['epochs']} epoch{'s' * (found['epochs'] != 1)} "
        f"on the train split, {seeds}"
        f"{'' if found['num_seeds'] == 1 else ': mean ± standard deviation'}",
        f"inherited: weights of the supernet {found['supernet']}",
        f"{found['search_images']} search images, which chose the architecture; {found['test_images']} test images",
    ]
    if found["failed"]:
        lines.append(f"{len(found['failed'])} of the trainings failed and do not count")
    table.caption = Text("\n".join(lines))
    return table


def _spread(row: Mapping[str, Any], key: str) -> str:
    sd = row[f"{key}_sd"]
    return f"{row[key]:.2f}" if sd is None else f"{row[key]:.2f} ± {sd:.2f}"


def forecast_table(values: Mapping[str, Any]) -> "Table":
    """`forecast` as a table for people."""
    from rich import box
    from rich.table import Table

    table = Table(title="Forecast; nothing was written", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    table.add_column("needs", justify="right", no_wrap=True)
    table.add_column("how")

    def memory(name: str) -> str:
        return f"{values[name] / 1e6:,.0f} MB"

    table.add_row("start", duration(values["start_s"]), "imports and images, as just now")
    table.add_row(
        "training",
        duration(values["train_s"]),
        f"{values['steps']:,} steps of {1e3 * values['step_s']:.3g} ms (median of {values['steps_timed']})"
        if values["steps"]
        else "nothing is left to train",
    )
    if values["trials"]:
        table.add_row(
            "search",
            duration(values["search_s"]),
            f"{values['trials']:,} architectures of {1e3 * values['evaluation_s']:.3g} ms "
            f"({values['evaluations_timed']} were measured), {values['parallelism']:.2g} at a time, "
            "with the start of the workers",
        )
    if values["measure_s"]:
        table.add_row(
            "final latency",
            duration(values["measure_s"]),
            f"front of about {values['front_size']} architectures, nothing else runs",
        )
    table.add_row("total", duration(values["total_s"]), "hours:minutes:seconds", style="bold")
    table.add_row(
        "memory",
        memory("memory_bytes"),
        f"this process {memory('memory_driver_bytes')}, workers {memory('memory_workers_bytes')}; of it weights "
        f"and optimiser {memory('memory_weights_bytes')}, images {memory('memory_images_bytes')}",
    )
    table.add_row(
        "disk",
        memory("disk_bytes"),
        f"checkpoints {memory('disk_checkpoints_bytes')}, trials {memory('disk_trials_bytes')}",
    )
    table.caption = (
        f"measured for {values['forecast_s']:.0f} s by doing some of the steps and trials"
        + "".join(f"; {note}" for note in values["notes"])
    )
    table.caption_justify = "left"
    return table


COLUMNS = {
    "layer": ("layer", "{:d}"),
    "dispersion_nats": ("dispersion (nats)", "{:.3f}"),
    "static_change_nats": ("change if static (nats)", "{:.3f}"),
    "similarity_to_previous": ("like the layer before", "{:.2f}"),
    "similarity_of_heads": ("heads alike", "{:.2f}"),
    "effective_rank": ("effective rank", "{:.1f}"),
    "tokens": ("tokens", "{:d}"),
}
CAPTION = (
    "static maps are safe where the predictions change little; sharing where maps are like those of the layer before;\n"
    "hallucination where heads are alike; fewer tokens from where the effective rank is far below them"
)


def redundancy_table(found: dict[str, Any]) -> "Table":
    """The rows as a table."""
    from rich import box
    from rich.table import Table

    title = f"{found['source']}: attention of a plain ViT on {found['images']} {found['split']} images"
    table = Table(title=title, box=box.SIMPLE_HEAD, caption=CAPTION, caption_justify="left")
    for header, _ in COLUMNS.values():
        table.add_column(header, justify="right")
    for row in found["layers"]:
        table.add_row(
            *("-" if row[key] is None else form.format(row[key]) for key, (_, form) in COLUMNS.items())
        )
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
