"""What a Python program brings along to a run: objects that its configuration names as `python/NAME`."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

from nas.base import AGREEMENT, BALANCED, LATENCIES, METRICS, ConfigError, Direction

if TYPE_CHECKING:
    from torch import Tensor, nn

PYTHON = "python/"
"""Prefix of what is an object of a Python program, in `data.spec`, `search.sampler` and `evaluate.targets`."""

HINT = "nas.search(..., {word}=...) with the same object goes on with the run; nas.load(run) shows it without"


class OwnTarget(Protocol):
    """A device of a Python program, on which latency is measured: a board behind a cable, a simulator, another runtime.

    How often it is timed, in which order and beside which reference model is decided as for every target: a latency is
    a ratio to the largest network, timed in turn with it (docs/latency.md).

    Attributes:
        name: What tables call it: letters, digits, `_`, `.` and `-`.
    """

    name: str

    def timer(self, model: "nn.Module", images: "Tensor") -> Callable[[int], float]:
        """Make a network ready, once: compile it, or write it as ONNX (`nas.save_onnx`) and send it somewhere.

        Args:
            model: A `nas.Subnet` in evaluation mode on a CPU; not to be changed.
            images: One batch, [B, C, S, S], float32.

        Returns:
            A function that does so many forward passes of the batch and returns the seconds of one.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnMetric:
    """A quantity that a Python program measures of every architecture, as an objective, within a bound, or beside them.

    Exactly one of the functions is given. A run keeps all but the function, and every value: a run that is resumed with
    another function under the same name mixes the two.

    Attributes:
        name: The key in tables and files: small letters, digits and `_`.
        unit: Of the value, for tables and axes.
        direction: Which way is better.
        of_logits: From the logits [N, K] and labels [N] of the search split, tensors on a CPU.
        of_features: From what goes into the classifier on the search split, float32 on a CPU: [N, d], and [N, D] of
            the plain ViT that the supernet holds (`Supernet.dense`).
        of_network: From the extracted network, a `nas.Subnet` in evaluation mode on the device, weights included.
        worst: The value that is worth nothing (the corner of the hypervolume); None: 0 where more is better, else 1.1
            times that of the largest network, for what is of a network.
        best: The best value there can be; None: 100 where more is better, else 0.
        bound: The worst value that the front may have.
    """

    name: str
    unit: str
    direction: Direction
    of_logits: "Callable[[Tensor, Tensor], float] | None" = None
    of_features: "Callable[[Tensor, Tensor], float] | None" = None
    of_network: Callable[[Any], float] | None = None
    worst: float | None = None
    best: float | None = None
    bound: float | None = None

    def __post_init__(self) -> None:
        taken = {**METRICS, **LATENCIES, BALANCED.name: 0}
        if not re.fullmatch(r"[a-z][a-z0-9_]*", str(self.name)) or self.name in taken:
            hint = "small letters, digits and _, and none of " + ", ".join(METRICS)
            raise ConfigError(f"metric {self.name!r}: not a name of its own", hint=hint)
        if [self.of_logits, self.of_features, self.of_network].count(None) != 2:
            hint = "of_logits=..., of_features=... or of_network=..."
            raise ConfigError(f"metric {self.name}: measured by one function", hint=hint)
        if self.direction not in get_args(Direction):
            raise ConfigError(f"metric {self.name}: direction {self.direction!r}", hint="maximize or minimize")
        for word in ("of_logits", "of_features", "of_network"):
            if not ((function := getattr(self, word)) is None or callable(function)):
                raise ConfigError(f"metric {self.name}: {word}: {_kind(function)} is no function")
        if self.worst is None and self.direction == "minimize" and self.of_network is None:
            raise ConfigError(f"metric {self.name}: from which value on is it worth nothing?", hint="worst=...")

    def to_dict(self) -> dict[str, Any]:
        """What a configuration keeps of it, JSON values under its name."""
        words = ("unit", "direction", "worst", "best", "bound")
        found = {word: value for word in words if (value := getattr(self, word)) is not None}
        of = "logits" if self.of_logits else "features" if self.of_features else "network"
        return {**found, "of": of}


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """The objects of a Python program that a run works with; a configuration holds their names alone.

    Attributes:
        data: A data set, or data sets by split (`nas.data.own_source`); None: the configuration names one.
        metrics: What is measured of every architecture besides.
        sampler: Makes an Optuna sampler from `seed=`; None: the configuration names one.
        targets: Devices, by the names that the configuration has for them.
    """

    data: Any = None
    metrics: tuple[OwnMetric, ...] = ()
    sampler: Callable[..., Any] | None = None
    targets: Mapping[str, OwnTarget] = field(default_factory=dict)

    def require(self, names: Iterable[tuple[str, str]]) -> None:
        """Raise a ConfigError where a name (`RunConfig.own_names`) has no object here."""
        here = {metric.name for metric in self.metrics} | set(self.targets)
        here |= {word for word in ("data", "sampler") if getattr(self, word) is not None}
        for word, name in names:
            if not {word, name} & here:
                raise ConfigError(f"{name} is an object of a Python program", hint=HINT.format(word=word))


NO_OWN = Own()


def items_of(word: str, value: Any, example: str) -> tuple[Any, ...]:
    """What an argument of `nas.search` holds; a ConfigError where it is text or a single thing, and no list."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        text = f"{word}: {value!r:.80} is no list" if isinstance(value, str) else f"{word}: {_kind(value)} is no list"
        raise ConfigError(text, hint=f"{word}=[{example}]")
    return tuple(value)


def path_of(word: str, value: Any) -> Path:
    """An argument that is a path; a ConfigError where it is none."""
    if not isinstance(value, str | Path):
        raise ConfigError(f"{word}: {_kind(value)} is no path", hint="text, or a pathlib.Path")
    return Path(value)


def written_settings(settings: Any) -> list[str]:
    """Settings as `--set` has them; a ConfigError: they are no mapping, or one has a value that no file can hold."""
    if not isinstance(settings, Mapping | None):
        text = f"settings: {settings!r:.80} is no mapping of keys and values"
        raise ConfigError(text, hint='settings={"train.lr": 1e-3, "constraints.max_macs": 2e6}')
    found = []
    for key, value in (settings or {}).items():
        try:
            found.append(f"{key}={json.dumps(value)}")
        except (TypeError, ValueError) as error:
            hint = "numbers, texts, lists and mappings of them"
            raise ConfigError(f"settings: {key}: {value!r:.80} is no value of a file", hint=hint) from error
    return found


def own_metrics(value: Any) -> tuple[OwnMetric, ...]:
    """The metrics that a program gives; a ConfigError: not all of a list are `OwnMetric`."""
    found = items_of("metrics", value, "nas.OwnMetric(...)")
    for metric in found:
        if not isinstance(metric, OwnMetric):
            hint = "nas.OwnMetric(name=..., unit=..., direction=..., of_logits=... or of_network=...)"
            raise ConfigError(f"metrics: {_kind(metric)} is no nas.OwnMetric", hint=hint)
        if metric.name == AGREEMENT.name:
            raise ConfigError(
                f"metric {metric.name!r}: there is one of that name", hint="as an objective it is measured"
            )
    names = [metric.name for metric in found]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ConfigError(f"metrics: several are called {', '.join(twice)}", hint="a name of its own for each")
    return found


def own_targets(value: Any) -> dict[str, OwnTarget]:
    """The devices among the targets that a program gives, by name; a ConfigError: one lacks what `OwnTarget` has."""
    found = [target for target in items_of("targets", value, '"torch-cpu", Board()') if not isinstance(target, str)]
    for target in found:
        lacks = [] if isinstance(getattr(target, "name", None), str) else ["text `name`"]
        lacks += [] if callable(getattr(target, "timer", None)) else ["method `timer`"]
        if lacks:
            hint = "timer(model, images) returns what times forward passes: help(nas.OwnTarget)"
            raise ConfigError(f"targets: {_kind(target)} has no {' and no '.join(lacks)}", hint=hint)
    return {own_name(target): target for target in found}


def own_sampler(value: Any) -> Callable[..., Any] | None:
    """What makes an Optuna sampler from `seed=`; None: a name, or nothing. Else a ConfigError."""
    hint = "give its class, or a function: lambda seed: TPESampler(seed=seed, ...)"
    if hasattr(value, "sample_relative") and not isinstance(value, type):
        text = f"{type(value).__name__} is a sampler, and every trial has a new one, made from seed and number"
        raise ConfigError(f"sampler: {text}", hint=hint)
    if value is None or isinstance(value, str):
        return None
    if not callable(value):
        raise ConfigError(f"sampler: {value!r:.80} makes no sampler", hint=hint)
    try:
        made = value(seed=0)
    except Exception as error:
        text = f"sampler: called with seed=0 it raises {type(error).__name__}: {error}"
        raise ConfigError(text, hint=hint) from error
    if not hasattr(made, "sample_relative"):
        raise ConfigError(f"sampler: called with seed=0 it makes no sampler, but {made!r:.80}", hint=hint)
    return value  # type: ignore[no-any-return]


def _kind(value: Any) -> str:
    """A value by its type, such as `a list`; a number or a class by itself."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    article = "an" if name[0] in "AEIOUaeiou" else "a"
    return repr(value) if value is None or isinstance(value, int | float) else f"{article} {name}"


def is_own(text: Any) -> bool:
    """Whether a value names an object of a Python program."""
    return isinstance(text, str) and re.fullmatch(rf"{PYTHON}[\w.-]+(?::.*)?", text) is not None


def own_name(value: Any) -> str:
    """What an object is called in a configuration: `python/` and its `name`, or that of its function or class."""
    name = next((n for n in (getattr(value, "name", None), getattr(value, "__name__", None)) if isinstance(n, str)), "")
    return PYTHON + (re.sub(r"[^\w.-]+", "", name) or type(value).__name__)
