"""How redundant the attention of every layer is: where static, shared or derived maps, or fewer tokens, are safe."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nas.config import DataConfig
from nas.errors import ConfigError
from nas.evaluation.evaluator import resolve_device
from nas.pipeline import trained_supernet
from nas.progress import Reporter
from nas.session import reopen
from nas.space_file import read_space
from nas.training.calibration import Calibration, redundancy_rows
from nas.training.data import load_images
from nas.training.pretrained import initial_weights
from nas.training.warm_start import watch

if TYPE_CHECKING:
    from rich.table import Table

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


def rank_run(path: Path, images: int) -> dict[str, Any]:
    """Redundancy of the plain ViT in a run's trained supernet, on its training images.

    Raises:
        RunError: Not a run, or its supernet is not trained.
    """
    session = reopen(path, Reporter(quiet=True))
    dense = trained_supernet(session).cpu().dense()
    weights = dict(dense.state_dict())
    found = watch(weights, session.space, session.data.train, session.device, images)
    return _summary(found, str(path))


def rank_weights(
    space_file: Path,
    init: str | None,
    data: str | None,
    images: int,
    seed: int | None,
    device: str | None,
    settings: tuple[str, ...],
) -> dict[str, Any]:
    """Redundancy of a trained plain ViT on the training images of some data.

    Raises:
        ConfigError: No weights are named, or they cannot be had.
        DataError: The images cannot be used.
    """
    if init is None:
        raise ConfigError("rank-layers of a space needs --init", hint="or give the folder of a trained run")
    space = read_space(space_file, settings)
    weights = initial_weights(init, space.backbone)
    config = DataConfig(spec=data) if data is not None else DataConfig()
    loaded = load_images(config, space.backbone.image_size, seed or 0)
    return _summary(watch(weights, space, loaded.train, resolve_device(device or "auto"), images), init)


def _summary(calibration: Calibration, source: str) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "source": source,
        "images": calibration.num_images,
        "split": "train",
        "torch": torch.__version__,
        "layers": redundancy_rows(calibration),
    }


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
