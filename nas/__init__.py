"""Search for the Pareto front of small, fast Vision Transformers.

`import nas` is light: the public names below load what they need when they are first used. It also tells timm
how to build an exported model, whichever is imported first:

    timm.create_model("local-dir:DIR", pretrained=True)

`nas.search(...)` does what `nas run` does, and `nas.load(path)` opens what it left.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

if TYPE_CHECKING:
    from nas import dense
    from nas.api import Run, compare, load, search
    from nas.arch import Architecture, Backbone, LayerChoice, cost
    from nas.base import (
        ArchitectureError,
        CheckpointError,
        ConfigError,
        DataError,
        EvaluationError,
        ExportError,
        NasError,
        NoResultError,
        RunError,
        SearchSpaceError,
        TrainingError,
    )
    from nas.jobs import Callback
    from nas.latency import save_onnx
    from nas.model import Subnet, Supernet
    from nas.runs import ParetoFront, RunDirectory
    from nas.settings import OwnMetric, OwnTarget
    from nas.space import SearchSpace

    __version__: str

__all__ = [
    "Architecture",
    "ArchitectureError",
    "Backbone",
    "Callback",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "EvaluationError",
    "ExportError",
    "LayerChoice",
    "NasError",
    "NoResultError",
    "OwnMetric",
    "OwnTarget",
    "ParetoFront",
    "Run",
    "RunDirectory",
    "RunError",
    "SearchSpace",
    "SearchSpaceError",
    "Subnet",
    "Supernet",
    "TrainingError",
    "__version__",
    "compare",
    "cost",
    "dense",
    "load",
    "save_onnx",
    "search",
]

_HOMES = {
    "Architecture": "nas.arch",
    "ArchitectureError": "nas.base",
    "Backbone": "nas.arch",
    "Callback": "nas.jobs",
    "CheckpointError": "nas.base",
    "ConfigError": "nas.base",
    "DataError": "nas.base",
    "EvaluationError": "nas.base",
    "ExportError": "nas.base",
    "LayerChoice": "nas.arch",
    "NasError": "nas.base",
    "NoResultError": "nas.base",
    "OwnMetric": "nas.settings",
    "OwnTarget": "nas.settings",
    "ParetoFront": "nas.runs",
    "Run": "nas.api",
    "RunDirectory": "nas.runs",
    "RunError": "nas.base",
    "SearchSpace": "nas.space",
    "SearchSpaceError": "nas.base",
    "Subnet": "nas.model",
    "Supernet": "nas.model",
    "TrainingError": "nas.base",
    "compare": "nas.api",
    "load": "nas.api",
    "save_onnx": "nas.latency",
    "search": "nas.api",
}
_MODULES = {"cost": "nas.arch.cost", "dense": "nas.dense"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    elif name == "__version__":
        value = _version()
    else:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("vit-front")
    except metadata.PackageNotFoundError:
        return "0+uninstalled"  # a checkout on sys.path


def _register_with_timm(_: ModuleType) -> None:
    importlib.import_module("nas.model")


register_post_import_hook(_register_with_timm, "timm.models")
