"""How redundant the attention of every layer is: where static, shared or derived maps, or fewer tokens, are safe."""

from pathlib import Path
from typing import Any

import torch

from nas.base import ConfigError
from nas.data import ImageSet, load_images
from nas.initial.pretrained import initial_weights
from nas.initial.warm_start import watch
from nas.latency import resolve_device
from nas.model import Supernet
from nas.settings import DataConfig, located_path
from nas.space import read_space
from nas.training import Calibration, redundancy_rows


def rank_supernet(supernet: Supernet, data: ImageSet, device: torch.device, images: int, source: str) -> dict[str, Any]:
    """Redundancy of the plain ViT in a trained supernet on its first training images, as JSON; `source` names it."""
    dense = supernet.cpu().dense()
    return _summary(watch(dict(dense.state_dict()), supernet.space, data, device, images), source)


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
    weights = initial_weights(located_path(init, [Path.cwd()]), space.backbone)
    config = DataConfig(spec=data) if data is not None else DataConfig()
    loaded, _ = load_images(config, space.backbone.image_size, seed or 0)
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
