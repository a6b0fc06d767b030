"""What `retrain` compares an architecture with, and its numbers in words."""

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas import cost
from nas.architecture import Architecture, AttentionKind
from nas.designs import known_designs
from nas.errors import ConfigError
from nas.report import unit_of
from nas.space import SearchSpace

if TYPE_CHECKING:
    from rich.table import Table

SPLITS = {"top1": "search", "test_top1": "test"}


def check_request(seeds: int, settings: Sequence[str]) -> None:
    """Find out what is wrong with the options, before anything heavy is imported.

    Raises:
        ConfigError: No seed, or a setting of something else than the training.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: every architecture is trained at least once", hint="--seeds 1")
    foreign = [setting for setting in settings if not setting.strip().startswith("train.")]
    if foreign:
        raise ConfigError(
            f"--set {foreign[0]}: retrain takes data, space and evaluation from the run",
            hint="--set train.KEY=VALUE changes the recipe; another run is what changes the rest",
        )


def baseline_of(space: SearchSpace) -> tuple[str, Architecture]:
    """What an architecture is compared with: the largest plain ViT of its space, else the largest architecture.

    Returns:
        Its name and itself.
    """
    (plain,) = known_designs(space, ["deit"]).values()
    is_plain = all(
        layer.attention is AttentionKind.DYNAMIC
        and layer.num_tokens == space.backbone.num_patches
        and not layer.num_hallucinated
        and layer.ffn_rank == 1
        for layer in plain.layers
    )
    return ("plain ViT", plain) if is_plain else ("largest", space.largest())


def network_row(
    name: str,
    architecture: Architecture,
    space: SearchSpace,
    inherited: Mapping[str, float],
    trainings: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What was found of one architecture, JSON values.

    Args:
        name: In words.
        architecture: It.
        space: Of the run.
        inherited: Top-1 in percent with the supernet's weights, by key of `SPLITS`.
        trainings: `seed`, and top-1 in percent by key of `SPLITS`, of each that ended well; at least one.
    """
    row: dict[str, Any] = {
        "name": name,
        "digest": architecture.digest,
        "macs": cost.macs(architecture, space.backbone),
        "params": cost.params(architecture, space.backbone),
        "seeds": [training["seed"] for training in trainings],
    }
    for key in SPLITS:
        values = [training[key] for training in trainings]
        row |= {
            f"inherited_{key}": inherited[key],
            key: statistics.fmean(values),
            f"{key}_sd": statistics.stdev(values) if len(values) > 1 else None,
            f"{key}_by_seed": values,
        }
    return row


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
