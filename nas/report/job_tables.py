"""Tables of what a long command found: export, forecast, trust, retrain, rank-layers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.base import BALANCED, TOP1, duration, plural, unit_of, with_interval
from nas.report.table import Cell, Column, Markup, Table, columns_of
from nas.runs import BALANCED_SPLITS, BASELINES, CONFIDENCE, RESAMPLES, SPLITS, retrained_rows

if TYPE_CHECKING:
    from rich.console import Group

MOST_CLASSES = 20  # rows of a table
STARTS = {"scratch": "random weights", "inherited": "the inherited weights", "timm": "timm's weights"}


def trust_table(found: Mapping[str, Any]) -> Table:
    """`trust.json` as a table: what ranks, and how well."""
    keys, accuracy = ("kendall_tau", "spearman_rho"), found.get("accuracy", "top-1")
    lines = [
        found["verdict"],
        f"gap: inherited is {_intervals(found, 'gap_points')[0]} points of {accuracy} from stand-alone, on average",
        f"{accuracy}: {found['num_images']} images of the {found['split']} split, {found['precision']}; "
        f"{plural(found['epochs'], 'epoch')} alone, weights of the supernet {found['supernet']}",
        f"intervals hold {100 * CONFIDENCE:g} % of {RESAMPLES} resamples of the architectures; "
        "differences are taken in each",
    ]
    if found["failed"]:
        lines.append(f"{plural(len(found['failed']), 'training')} failed; their architectures are left out")
    return Table(
        title=f"{found['run']}: order of inherited and of stand-alone {accuracy}, "
        f"{plural(found['num_architectures'], 'architecture')}, {plural(found['num_seeds'], 'seed')}",
        columns=list(map(Column, ("ranked by", "Kendall tau", "Spearman rho", "inherited is above it in tau by"))),
        rows=[
            (f"inherited {accuracy}", *_intervals(found, *keys), ""),
            (),
            *((BASELINES[name], *_intervals(found["baselines"][name], *keys, "tau_above_it")) for name in BASELINES),
            ("another seed (ceiling)", *_intervals(found, "seed_to_seed_tau"), "", ""),
        ],
        caption=lines,
        dim=False,
    )


def _intervals(values: Mapping[str, Any], *keys: str) -> list[str]:
    return ["-" if values[key] is None else with_interval(values[key], values[f"{key}_ci"]) for key in keys]


def training_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a training, for `--format csv`."""
    kept = ("name", "digest", "from", "macs", "params", "latency_ms", "inherited_top1", "inherited_test_top1")
    return [
        {
            **{key: row[key] for key in kept if key in row},
            "seed": seed,
            **{key: row[f"{key}_by_seed"][i] for key in SPLITS | BALANCED_SPLITS if f"{key}_by_seed" in row},
        }
        for row in retrained_rows(found)
        for i, seed in enumerate(row["seeds"])
    ]


def retrain_table(found: Mapping[str, Any]) -> Table:
    """What `retrain` found (`retrain/<digest>.json`): each network with the supernet's weights and trained alone."""
    networks = retrained_rows(found)
    factor, prefix = unit_of([row["macs"] for row in networks])
    timed = found.get("latency")
    splits = BALANCED_SPLITS if set(BALANCED_SPLITS) <= found["picked"].keys() else SPLITS
    rows = []
    for row in networks:
        name = row["name"] if row["name"] == row["digest"] else f"{row['name']} ({row['digest']})"
        other = f", from {STARTS[row['from']]}" if row.get("from", found["from"]) != found["from"] else ""
        cells: list[Cell] = [name + other, row["macs"] / factor, row["params"]]
        cells += [row["latency_ms"]] if timed else []
        for key in splits:
            sd = row[f"{key}_sd"]
            cells += [row[f"inherited_{key}"], f"{row[key]:.2f}" + ("" if sd is None else f" ± {sd:.2f}")]
        rows.append(cells)
    lines = [
        f"alone: from {STARTS[found['from']]}, {plural(found['epochs'], 'epoch')} on the train split, "
        f"{plural(found['num_seeds'], 'seed')}{': mean ± standard deviation' * (found['num_seeds'] != 1)}",
        f"inherited: weights of the supernet {found['supernet']}",
        f"{found['search_images']} search images, which chose the architecture; {found['test_images']} test images",
    ]
    if timed:
        lines.append(f"latency: {timed['target']}, batch of {timed['batch']}, all in turn")
    if found["failed"]:
        lines.append(f"{len(found['failed'])} of the trainings failed and do not count")
    ways = [
        f"{split} {'balanced ' * (key in BALANCED_SPLITS)}top-1 %,\n{way}"
        for key, split in splits.items()
        for way in ("inherited", "trained alone")
    ]
    headers = {"architecture": "", f"{prefix}MACs": "{:.3g}", "parameters": "{:,}"}
    headers |= {"latency,\nms": "{:.3g}"} if timed else {}
    headers |= dict.fromkeys(ways, "{:.2f}")
    return Table(
        title=f"{found['run']}: {found['picked']['digest']} trained alone",
        columns=columns_of(headers),
        rows=rows,
        caption=lines,
        dim=False,
    )


def finalists_table(found: Mapping[str, Any]) -> Table:
    """What `finalists` found (the key of that name in `front.json`): every candidate and what became of it."""
    factor, prefix = unit_of([row["macs"] for row in found["candidates"]])
    rows = []
    for row in sorted(found["candidates"], key=lambda row: (row["macs"], row["digest"])):
        trained = ["" if value is None else f"{value:.2f}" for value in row["trained"]]
        if "mean_ci" in row:
            trained[-1] += " ({:.1f} to {:.1f})".format(*row["mean_ci"])
        kinds = ["plain"] * row["plain"] + ["front"] * row["on_inherited_front"]
        cells: list[Cell] = [row["digest"], row["macs"] / factor, row["inherited"], *trained]
        rows.append((*cells, "chosen" if row["chosen"] else "", ", ".join(kinds)))
    name = {TOP1.name: "top-1 %", BALANCED.name: "balanced top-1 %"}[found["accuracy"]]
    after = [plural(epochs, "epoch") for epochs in found["epochs"]]
    headers = {"candidate": "", f"{prefix}MACs": "{:.3g}", f"{name},\ninherited": "{:.2f}", **dict.fromkeys(after, "")}
    return Table(
        title="Finalists, by cost",
        columns=columns_of({**headers, " ": "", "kind": ""}),
        rows=rows,
        caption=[
            f"{name.partition(' %')[0]} on the search split, inherited and trained alone from there for so many epochs",
            *(["of several seeds the median, and the 95 % interval of the mean"] * (found.get("seeds", 1) > 1)),
            "plain: a plain ViT; front: on it when inherited; the chosen that none dominates are on it now",
        ],
        dim=False,
    )


def forecast_table(values: Mapping[str, Any]) -> Table:
    """`forecast` as a table for people."""

    def memory(name: str) -> str:
        return f"{values[f'{name}_bytes'] / 1e6:,.0f} MB"

    def time(name: str) -> str:
        return duration(values[f"{name}_s"])

    steps = f"{values['steps']:,} steps of {1e3 * values['step_s']:.3g} ms (median of {values['steps_timed']})"
    rows: list[Sequence[Cell]] = [
        ("start", time("start"), "imports and images, as just now"),
        ("training", time("train"), steps if values["steps"] else "nothing is left to train"),
    ]
    if values["trials"]:
        trials = (
            f"{plural(values['trials'], 'architecture')} of {1e3 * values['evaluation_s']:.3g} ms "
            f"(measured {values['evaluations_timed']}), {values['parallelism']:.2g} at a time, "
            "with the start of the workers"
        )
        rows.append(("search", time("search"), trials))
    if values["finalists"]:
        epochs = plural(values["finalist_epochs"], "epoch")
        trained = f"{plural(values['finalists'], 'candidate')} trained on, the better half of them for {epochs}"
        rows.append(("finalists", time("finalists"), trained))
    if values["measure_s"]:
        front = f"front of about {plural(values['front_size'], 'architecture')}, nothing else of ours runs"
        rows.append(("final latency", time("measure"), front))
    total = ("total", time("total"), "hours:minutes:seconds" if time("total").count(":") > 1 else "minutes:seconds")
    parts = (
        f"at most at one time; this process at its own peak {memory('memory_driver')}, workers at theirs "
        f"{memory('memory_workers')}; of it weights and optimiser {memory('memory_weights')}, images "
        f"{memory('memory_images')}"
    )
    files = f"checkpoints {memory('disk_checkpoints')}, trials {memory('disk_trials')}"
    files += f", finalists {memory('disk_finalists')}" if values["finalists"] else ""
    rows += [
        [Markup(f"[bold]{cell}[/]") for cell in total],
        ("memory", memory("memory"), parts),
        ("disk", memory("disk"), files),
    ]
    how = f"measured for {values['forecast_s']:.0f} s by doing some of the steps and trials"
    return Table(
        title="Forecast; nothing was written",
        columns=[Column(), Column("needs", "{}"), Column("how", wraps=True)],
        rows=rows,
        caption=["; ".join([how, *values["notes"]])],
    )


def proposal_table(values: Mapping[str, Any]) -> Table:
    """`init` for people: what was chosen, and why."""
    rows: list[Sequence[Cell]] = [(row["choice"], row["value"], row["why"]) for row in values["choices"]]
    factor, prefix = unit_of(values["macs"])
    macs = " to ".join(f"{ends / factor:.3g}" for ends in values["macs"])
    rows += [(), ("networks", f"{values['architectures']:.2g}", f"of {macs} {prefix}MACs an image")]
    if (needs := values["forecast"]) is not None:
        parts = ("training", "train_s"), ("search", "search_s"), ("finalists", "finalists_s"), ("latency", "measure_s")
        told = ", ".join(f"{name} {duration(needs[key])}" for name, key in parts if needs[key])
        memory, disk = (f"{needs[key] / 1e6:,.0f} MB" for key in ("memory_bytes", "disk_bytes"))
        rows.append(("time", duration(needs["total_s"]), f"rehearsed: {told}; memory {memory}, disk {disk}"))
    else:
        rows.append(("time", duration(values["training_core_s"]), values["rule"]))
    return Table(
        title=f"{values['space_file']} and {values['config_file']}",
        columns=[Column(), Column(wraps=True), Column(wraps=True)],
        rows=rows,
        caption=[f"$ {values['command']}"],
    )


def predict_table(found: Mapping[str, Any]) -> Table:
    """`predict` for people: an image a row."""
    rows = []
    for row in found["images"]:
        best, *others = row["predictions"]
        also = ", ".join(f"{one['class']} {100 * one['probability']:.1f}" for one in others)
        rows.append((row["image"], best["class"], 100 * best["probability"], also))
    return Table(
        title=f"{found['bundle']}: {plural(len(rows), 'image')}, by {found['runtime']}",
        columns=[
            Column("image", wraps=True),
            Column("class", wraps=True),
            Column("%", "{:.1f}"),
            Column("then", wraps=True),
        ],
        rows=rows,
    )


def validate_table(found: Mapping[str, Any]) -> Table:
    """`validate` for people: all images, then the classes, the worst first."""

    def row(title: str, images: int, value: float, low: float, high: float) -> tuple[str, int, float, str]:
        return title, images, value, f"{low:.1f} to {high:.1f}"

    classes = sorted(found["classes"], key=lambda one: (one["top1"], one["class"]))
    rows: list[Any] = [row("all", found["images"], found["top1"], *found["top1_ci"])]
    if len({one["images"] for one in classes}) > 1:
        rows.append(row("mean of the classes", found["images"], found["balanced_top1"], *found["balanced_top1_ci"]))
    rows.append(())
    rows += [row(*(one[key] for key in ("class", "images", "top1", "top1_low", "top1_high"))) for one in classes]
    shown = rows[: MOST_CLASSES + 3]
    card = found["card_test_top1"]
    lines = [
        f"chance {found['chance']:.1f} %"
        + ("" if card is None else f", on its card {card:.1f} % (test, {found['card_precision']})")
    ]
    if len(shown) < len(rows):
        lines.append(f"the {len(rows) - len(shown)} better classes: --format csv")
    lines += [f"{note[0].upper()}{note[1:]}." for note in found["notes"]]
    runtime = found["runtime"] + ("" if found["runtime"].endswith("int8") else ", fp32")
    lines.append(f"{runtime}, {found['device']}, {found['runtime_version']}, seed {found['seed']}")
    return Table(
        title=f"{found['bundle']} on {found['data']}, {found['split']}",
        columns=[
            Column("class", wraps=True),
            Column("images", "{:,}"),
            Column("top-1 (%)", "{:.1f}"),
            Column("95 % interval"),
        ],
        rows=shown,
        caption=lines,
    )


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
    "static maps are safe where the predictions change little; sharing where maps are like those of the layer before;",
    "hallucination where heads are alike; fewer tokens from where the effective rank is far below them",
)


def redundancy_table(found: dict[str, Any]) -> Table:
    """The rows of `rank-layers` as a table."""
    return Table(
        title=f"{found['source']}: attention of a plain ViT on {found['images']} {found['split']} images",
        columns=columns_of(dict(COLUMNS.values()), wraps=True),
        rows=[[row[key] for key in COLUMNS] for row in found["layers"]],
        caption=CAPTION,
    )


def export_tables(bundle: Mapping[str, Any]) -> "Group":
    """What an export wrote (`ExportReport.to_dict`), file by file, and what eight bits gave where they are among it."""
    from rich.console import Group

    eight = bundle.get("int8")
    return Group(_files_table(bundle), *([_eight_bits_table(eight)] if eight else []))


def _files_table(bundle: Mapping[str, Any]) -> Table:
    batches = ", ".join(map(str, bundle["files"][0]["max_delta"])) if bundle["files"] else ""
    headers = {"format": "", "file": "", "size (kB)": "{:,.0f}", "difference": "{:.1e}", "time (s)": "{:.1f}"}
    largest = [max(file["max_delta"].values(), default=0.0) or "0" for file in bundle["files"]]
    return Table(
        title=f"{bundle['digest']} in {bundle['directory']}",
        columns=columns_of(headers, wraps=True),
        rows=[
            (file["format"], file["file"], file["size_bytes"] / 1e3, delta, file["seconds"])
            for file, delta in zip(bundle["files"], largest, strict=True)
        ],
        caption=[
            *_tested(bundle),
            f"differences are the largest between logits before and after reloading, batches of {batches}",
        ],
        box="HEAVY_HEAD",
    )


def _tested(bundle: Mapping[str, Any]) -> Iterator[str]:
    if bundle.get("test_top1") is not None:
        low, high = bundle["test_top1_ci"]
        images = plural(bundle["test_images"], "image")
        yield f"test top-1: {bundle['test_top1']:.1f} % (95 % interval {low:.1f} to {high:.1f}), {images}"


def push_table(found: Mapping[str, Any]) -> Table:
    """What `push` put onto the hub, or would, file by file."""
    return Table(
        title=found["repo"],
        columns=columns_of({"file": "", "size (kB)": "{:,.1f}"}),
        rows=[(row["file"], row["size_bytes"] / 1e3) for row in found["files"]],
        caption=["nothing was sent" if found["url"] is None else "sent", f"licence: {found['license'] or 'not said'}"],
        box="HEAVY_HEAD",
    )


def _eight_bits_table(found: Mapping[str, Any]) -> Table:
    """Top-1 in eight bits beside fp32 on both splits, what was lost on the same images, and the time over float's."""

    def ends(interval: Sequence[float]) -> str:
        return f"({interval[0]:.2f} to {interval[1]:.2f})"

    rows = []
    for split, prefix in (("search", ""), ("test", "test_")):
        top1, lost = found[f"{prefix}top1"], found[f"{prefix}lost_points"]
        told = [
            f"{value:.2f} {ends(found[f'{prefix}{key}_ci'])}" for key, value in (("top1", top1), ("lost_points", lost))
        ]
        rows.append((split, top1 + lost, *told))
    where = f"batch of {found['latency_batch_size']}, threads: {found['latency_threads']}"
    return Table(
        title="eight bits",
        columns=columns_of({"split": "", "fp32, top-1 (%)": "{:.2f}", "int8, top-1 (%)": "", "points lost": ""}),
        rows=rows,
        caption=[
            "in brackets 95 % intervals; of the points lost on the same images",
            f"time over float {found['latency_ratio']:.2f} {ends(found['latency_ratio_quartiles'])}: median, quartiles",
            f"{found['latency_target']}, {where}, {found['latency_device']}",
        ],
    )
