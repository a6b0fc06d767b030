"""A model folder that somebody else may have written: looked at before timm builds and loads what it says."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nas.base import ConfigError, read_json
from nas.model.timm_entry import UNREADABLE

MOST = 65_536  # channels, classes or pixels; a mistake or an attack beyond
MOST_LAYERS = 1_024
# Values that a model may make that is built only to be counted: a byte of its weights is a parameter at most, a few of
# its size are temporary, and tables of positions and masks are beside them.
TIMES, BESIDE = 4, 1 << 26
LISTED = 5
HINT = "a folder that timm or `export` wrote"
WEIGHTS = ("*.safetensors", "*.bin", "*.pth", "*.pt", "*.pth.tar")


def check_model_folder(folder: Path) -> None:
    """Find out whether timm's `create_model("local-dir:...")` may be let at a folder.

    It runs no code of the folder: the configuration is JSON, weights are safetensors, or unpickled by torch as nothing
    but tensors (timm's default since 1.0.31). What it would build is bounded here by the size of the weights.

    Raises:
        ConfigError: It is no such folder, or says what no trained network says.
        OSError: config.json cannot be read; a ValueError where it is no JSON.
    """
    check_inside(folder, folder / "config.json", *(path for pattern in WEIGHTS for path in folder.glob(pattern)))
    config = read_json(folder / "config.json")
    if not isinstance(config, Mapping):
        raise ConfigError(f"{folder}/config.json: must hold a group of keys", hint=HINT)
    name, arguments = config.get("architecture"), config.get("model_args", {})
    if not (isinstance(name, str) and timm.is_model(name)):
        raise ConfigError(f"{folder}/config.json: timm has no architecture {name!r}", hint=HINT)
    groups = {key: config.get(key, {}) for key in ("model_args", "pretrained_cfg")}
    problems = [f"{key} must be a group of keys" for key, group in groups.items() if not isinstance(group, Mapping)]
    problems += [f"{key} {value} is too large" for key, value, most in _sizes("model_args", arguments) if value > most]
    if problems:
        raise ConfigError(f"{folder}/config.json: {'; '.join(problems[:5])}", hint=HINT)
    spec = f"local-dir:{folder}"
    there = max((path.stat().st_size for path in _weights(folder)), default=0)
    needed = _parameters(spec, there)
    if there < needed:  # a byte each, though floats have two at least
        raise ConfigError(
            f"{folder}: its config.json is of {needed:,} parameters, its weights have {there:,} bytes", hint=HINT
        )


def _sizes(key: str, value: Any) -> Iterator[tuple[str, int, int]]:
    """Numbers and lengths of lists, each with the largest that may be."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _sizes(f"{key}.{name}", inner)
    elif isinstance(value, list):
        yield f"length of {key}", len(value), MOST_LAYERS
        for inner in value[:MOST_LAYERS]:
            yield from _sizes(key, inner)
    elif isinstance(value, int):
        yield key, value, MOST_LAYERS if "depth" in key.rpartition(".")[2] else MOST


def _weights(folder: Path) -> Iterator[Path]:
    return (path for pattern in WEIGHTS for path in folder.glob(pattern) if path.is_file())


def check_inside(folder: Path, *files: Path) -> None:
    """Raise a ConfigError where a file of a folder lies elsewhere; where the Hugging Face cache has it is fine."""
    root = folder.resolve()
    blobs = root.parents[1] / "blobs" if root.parent.name == "snapshots" else root
    for file in files:
        if not (file.resolve().is_relative_to(root) or file.resolve().parent == blobs):
            raise ConfigError(f"{file}: a link to a file outside of its folder", hint="copy the file into the folder")


def check_finite(values: Mapping[str, Tensor], source: str) -> None:
    """Raise a ConfigError where weights hold NaN or infinity; `source` is where they are from, as the user wrote it."""
    strange = [name for name, value in values.items() if value.is_floating_point() and not value.isfinite().all()]
    if strange:
        more = f" and {len(strange) - LISTED} more" if len(strange) > LISTED else ""
        text = f"{source}: NaN or infinity in {', '.join(strange[:LISTED])}{more}"
        raise ConfigError(text, hint="the training that wrote them diverged, or the file is damaged")


def _parameters(spec: str, most: int) -> int:
    """How many a model has, without the memory for them.

    What timm cannot build so is built for real, in no more memory than weights of `most` bytes may need.
    """
    try:
        with torch.device("meta"):
            model = timm.create_model(spec, pretrained=False)
    except (NotImplementedError, *UNREADABLE) as error:
        if not isinstance(error, NotImplementedError) and "meta" not in str(error):
            raise
        with _Bounded(BESIDE + TIMES * most):
            model = timm.create_model(spec, pretrained=False)
    return sum(parameter.numel() for parameter in model.parameters())


class _Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tensors made within it have so many values together, or there is a ValueError before one is made."""

    def __init__(self, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left = most

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what a factory such as `aten.empty` is asked for, and what anything else has made."""
        size = args[0] if args and func._schema.arguments[0].name == "size" else ()
        self._spend(math.prod(size) if size else 0)
        found = func(*args, **kwargs or {})
        if not size and isinstance(found, Tensor) and not any(found is one for one in args):
            self._spend(0 if found._is_view() else found.numel())
        return found

    def _spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise ValueError("its config.json is of a larger network than its weights")
