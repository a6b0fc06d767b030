"""A bundle that is used: its files as they are, one of its formats loaded, and how it wants its images."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.arch import Backbone
from nas.base import ConfigError, ExportError, problem_words, read_json
from nas.bundle.bundle import (
    ARCHITECTURE,
    FILES,
    INT8,
    NEEDED,
    PROVENANCE,
    TABLE,
    check_there,
    file_damage,
    load,
    read_table,
    require,
)
from nas.model import check_inside, check_model_folder

Triple = tuple[float, float, float]
RUNTIMES: Mapping[str, str] = {"torch": "timm", "onnx": "onnx", INT8: INT8, "openvino": "openvino"}
"""What runs a bundle, and the format that it takes; model.pt2 is left out, as loading it may run code."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opened:
    """A bundle whose network runs.

    Attributes:
        table: Its metrics.json.
        provenance: Its provenance.json; empty where there is none.
        runtime: A key of `RUNTIMES`.
        run: Normalised images [B, C, S, S] on `device` -> logits [B, K].
    """

    folder: Path
    table: Mapping[str, Any]
    provenance: Mapping[str, Any]
    backbone: Backbone
    class_names: tuple[str, ...]
    mean: Triple
    std: Triple
    crop_pct: float
    runtime: str
    device: torch.device
    run: Callable[[Tensor], Tensor]

    @property
    def version(self) -> str:
        """Package and version of what runs it, such as `onnxruntime 1.32.0`."""
        package = NEEDED.get(RUNTIMES[self.runtime], ("torch",))[-1]
        return f"{package} {torch.__version__ if package == 'torch' else version(package)}"

    @property
    def stored_side(self) -> int:
        """Pixels that the shorter side is resized to, before the centre is cut out."""
        return math.floor(self.backbone.image_size / self.crop_pct)


def open_bundle(folder: Path, runtime: str | None = None, device: torch.device | None = None) -> Opened:
    """Open a folder that `export` wrote; None is the first runtime that it has a file for, on a CPU.

    Raises:
        ConfigError: It is no bundle, or a damaged one, it lacks this format, or a package is missing.
    """
    check_there(folder)
    try:
        check_inside(folder, *(folder / name for name in (TABLE, ARCHITECTURE, PROVENANCE)))
        table, _, backbone = read_table(folder)
        provenance = read_json(folder / PROVENANCE) if (folder / PROVENANCE).is_file() else {}
        mean, std, names, crop_pct = _preprocessing(table["preprocessing"], backbone)
    except (ExportError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = error.message if isinstance(error, ExportError) else ""
        reason = told or f"{folder} is a damaged bundle: {problem_words(error)}"
        raise ConfigError(reason, hint="export it again from its run") from error
    chosen = _runtime(folder, table, runtime)
    run = _load(folder, table, chosen, device or torch.device("cpu"))
    return Opened(
        folder=folder,
        table=table,
        provenance=provenance,
        backbone=backbone,
        class_names=names,
        mean=mean,
        std=std,
        crop_pct=crop_pct,
        runtime=chosen,
        device=device if device is not None and chosen == "torch" else torch.device("cpu"),
        run=run,
    )


def _preprocessing(how: Mapping[str, Any], backbone: Backbone) -> tuple[Triple, Triple, tuple[str, ...], float]:
    """Mean, deviation, names of the classes, and the share that is seen; a ValueError: they are not the network's."""
    mean, std = ((float(red), float(green), float(blue)) for red, green, blue in (how["mean"], how["std"]))
    names, crop_pct = tuple(map(str, how["class_names"])), float(how["crop_pct"])
    if len(names) != backbone.num_classes or not 0.01 < crop_pct <= 1:
        raise ValueError("its preprocessing does not fit its network")
    return mean, std, names, crop_pct


def _runtime(folder: Path, table: Mapping[str, Any], wanted: str | None) -> str:
    there = [name for name, kind in RUNTIMES.items() if kind in table["formats"]]
    if wanted is None and there:
        return there[0]
    if wanted not in there:
        asked = "that it can be run by" if wanted is None else f"for --runtime {wanted}"
        has = ", ".join(name for name in FILES if name in table["formats"])
        raise ConfigError(
            f"{folder}: has no file {asked}; it has {has}",
            hint=f"--runtime {there[0]}" if there else "export it again with --formats timm,onnx",
        )
    return wanted


def _load(folder: Path, table: Mapping[str, Any], runtime: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    name = RUNTIMES[runtime]
    require([name], to_write=False)
    check_inside(folder, *(folder / file for file in FILES[name]))
    if problems := list(file_damage(folder, name, table["formats"][name]["files"], table["params"])):
        raise ConfigError(f"{folder}: {'; '.join(problems)}", hint="copy it again, or export it again")
    try:
        if runtime == "torch":
            check_model_folder(folder)
        loaded = load(name, folder)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{folder}: its {name} file cannot be loaded: {type(error).__name__}: {error}", hint="export it again"
        ) from error
    return loaded.run if loaded.module is None else loaded.module.to(device)
