"""A model folder that somebody else may have written: looked at before timm builds and loads what it says."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
import torch

from nas.base import ConfigError, read_json
from nas.model.timm_entry import UNREADABLE

MOST = 65_536  # channels, classes or pixels; a mistake or an attack beyond
MOST_LAYERS = 1_024
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
    needed, there = _parameters(spec), max((path.stat().st_size for path in _weights(folder)), default=0)
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


def _parameters(spec: str) -> int:
    """How many a model has, without the memory for them; 0 where timm cannot build it so."""
    try:
        with torch.device("meta"):
            model = timm.create_model(spec, pretrained=False)
    except NotImplementedError:
        return 0
    except UNREADABLE as error:
        if "meta" in str(error):
            return 0
        raise
    return sum(parameter.numel() for parameter in model.parameters())
