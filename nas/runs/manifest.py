"""`manifest.json`: what a run is, what its search is measured by, and how far it is.

The images are described key by key and not as a `DataInfo`: the file does not say whether they may be mirrored.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from nas.base import LATENCY, SCHEMA_VERSION, ConfigError, Metric, Objective, RunError, metric_named

PACKAGES = ("torch", "timm", "optuna", "ray", "numpy", "pandas", "scikit-learn", "onnx", "onnxruntime")
Stage = Literal["created", "training", "searching", "finalists", "measuring", "finished"]


REFERENCE_MARGIN = 1.1
"""The worst corner of the hypervolume: a cost this many times that of the largest architecture of the space."""

Clocks = Mapping[str, float]
"""Milliseconds per batch of the reference model, the largest architecture, by the name of the latency.

Latency is measured as a ratio to that model, timed in turn with it: the ratio hardly depends on what else the machine
does, the model's own time does. Milliseconds are ratios times one such figure, and are compared on one clock only.
"""


def clock_factors(before: Clocks, now: Clocks) -> dict[str, float]:
    """What turns milliseconds of one clock into those of another, by the name of the latency, where both have it."""
    return {name: now[name] / before[name] for name in before if name in now}


def objectives_by(objectives: Iterable[Objective], clocks: Clocks) -> tuple[Objective, ...]:
    """The objectives with the worst corners of latency on a clock: `REFERENCE_MARGIN` times the reference model."""
    corners = {name: REFERENCE_MARGIN * ms for name, ms in clocks.items()}
    return tuple(replace(o, reference=corners.get(o.metric.name, o.reference)) for o in objectives)


def objective_to_dict(objective: Objective) -> dict[str, Any]:
    """An objective as JSON values: in the manifest, and in `front.json`."""
    metric = objective.metric
    values = {"name": metric.name, "unit": metric.unit, "direction": metric.direction, "reference": objective.reference}
    return values if metric.best is None else {**values, "best": metric.best}


def objective_from_dict(values: Mapping[str, Any]) -> Objective:
    """Inverse of `objective_to_dict`; of our own metrics name and reference are enough."""
    name = values["name"]
    try:
        metric = metric_named(name)
    except ConfigError:
        if "unit" not in values:  # as is every metric of a Python program
            raise
        metric = Metric(name, values["unit"], values["direction"], name, values.get("best"))
    return Objective(metric, float(values["reference"]))


def _objective(value: Any) -> Objective:
    try:
        return value if isinstance(value, Objective) else objective_from_dict(value)
    except (KeyError, TypeError, ConfigError) as error:
        raise ValueError(f"not an objective: {error!r}") from error


class SearchIdentity(BaseModel):
    """What a search is measured by, fixed when it first starts.

    Attributes:
        objectives: With the references of the hypervolume.
        reference_ms: Latency of the reference model on the first target, milliseconds per batch: what the search tells
            is a ratio to that model times this, or where a profile answers, what it says of both.
        further_reference_ms: The same on further targets, by name of the metric.
        reference_digest: Of the reference model, the largest architecture of the space.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    objectives: tuple[Annotated[Objective, BeforeValidator(_objective), PlainSerializer(objective_to_dict)], ...]
    reference_ms: float
    further_reference_ms: Mapping[str, float] = {}
    reference_digest: str

    @property
    def reference_clocks(self) -> dict[str, float]:
        """Milliseconds of the reference model by the name of the metric."""
        return {LATENCY.name: self.reference_ms, **self.further_reference_ms}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchBudget:
    """When a search ends: after so many measured architectures (no repeats), or at a Unix time; None: no limit."""

    num_trials: int | None = None
    deadline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What a job of so many minutes does, settled before it begins.

    Attributes:
        epochs: Of the supernet.
        trials: Architectures to measure.
        finalists: Candidates to train on; 0: none.
        finalist_epochs: Epochs of the supernet that cost, in MACs, what all trainings of the finalists may.
    """

    minutes: float
    epochs: int
    trials: int
    finalists: int
    finalist_epochs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalistsProgress:
    """How far the trainings of the finalists were at a Unix time (`told`): their share of all MACs that they cost."""

    share: float
    minutes_left: float | None
    told: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetTrial:
    """One set of training hyper-parameters, and what became of the supernet that was trained with them.

    Attributes:
        number: Order of proposal, from 0.
        parameters: Value by dotted key, such as `train.lr`.
        state: `training` (or killed, to go on), `complete`, `stopped` (early, as others were better) or `failed`.
        scores: Hypervolume of the probe subnets after so many epochs.
    """

    number: int
    parameters: Mapping[str, Any]
    state: Literal["training", "complete", "stopped", "failed"] = "training"
    scores: Mapping[int, float] = field(default_factory=dict)
    error: str | None = None

    @property
    def key(self) -> str:
        """Name of its folder."""
        return trial_key(self.parameters)

    @property
    def score(self) -> float | None:
        """The latest score."""
        return self.scores[max(self.scores)] if self.scores else None


def trial_key(parameters: Mapping[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of a supernet trial's parameters."""
    return hashlib.sha256(json.dumps(dict(parameters), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlace:
    """Where the images of a run are, as it was told last.

    Attributes:
        spec: A data spec.
        folders: From which its relative paths start: seen from the run's folder, for what moves together, and absolute,
            for a run that moves alone.
    """

    spec: str
    folders: tuple[str, ...]


def typed_in(path: Path) -> tuple[str, str]:
    """The folder of now, from which relative paths start: seen from a run in `path`, and absolute."""
    here = Path.cwd()
    return os.path.relpath(here, path.resolve()), str(here)


def versions_here() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # such as Ray, without which --workers 0 does
            found[name] = version(name)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSource:
    """The run whose supernet a run started from, as it was then.

    Attributes:
        run: Name of its folder; the path is `init` of the configuration.
        space: Name of its space, which has all choices of the new one.
        supernet_digest: Of its trained weights.
    """

    run: str
    space: str
    space_digest: str
    supernet_digest: str


class Manifest(BaseModel):
    """What a run is and how far it is. Its fields are the file's keys, but for those of `search`, which lie flat.

    Keys that this version does not know are kept, and written again.

    Attributes:
        space_file: The search space, as it was named there.
        space_settings: Changes on top of it, such as `constraints.max_macs=2e6`.
        space_digest: Of the space with them.
        seed: Of splits, training and search.
        class_names: One a class; the position is the label.
        largest_class: Share of the search split's images that are of its most frequent class; None in runs of before.
        mean: Per channel of the train split, of pixels scaled to 0..1; `std` likewise.
        splits: Hash by name of the split.
        device: Name of the processor, such as `cpu: Intel(R) Xeon(R)`.
        threads: Of the training.
        folders: From which relative paths of the configuration start: that in which the run was started, seen from the
            run's folder, and absolute; None in what the first versions left.
        images: Where they are; None: as the configuration says, as the first versions left it.
        started_from: The run that the first weights are of; None where they are of no run, or of an earlier version's.
        constraints: Metric name -> highest latency that the front may have, milliseconds per batch.
        stage: What it does, or did when it was interrupted.
        search: What it is measured by; None before the search first starts.
        supernet_digest: Of the trained weights, over several supernets a digest of theirs; None before.
        budget: Of the last search; None before.
        plan: Of a run that was given minutes; None: it was not.
        finalists: How far their trainings are; None before they begin and once the front is of them.
        study: Name of a supernet trial's study in a shared database.
        supernet_trial: Of a supernet's folder: what it is trained with, and how that went.
        supernet_trials: How many supernets the run trains; None: it is a run of one.
        supernet_trials_ended: How many of them have ended, one way or another.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    command: str
    space_file: str
    space_settings: tuple[str, ...]
    space_digest: str
    seed: int
    versions: Mapping[str, str]
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    splits: Mapping[str, str]
    precision: str
    device: str
    threads: int
    folders: tuple[str, ...] | None = None
    images: ImagePlace | None = None
    largest_class: float | None = None
    started_from: WeightSource | None = None
    constraints: Mapping[str, float] = {}
    stage: Stage = "created"
    created: float = Field(default_factory=time.time)
    search: SearchIdentity | None = None
    supernet_digest: str | None = None
    budget: SearchBudget | None = None
    plan: RunPlan | None = None
    finalists: FinalistsProgress | None = None
    study: str | None = None
    supernet_trial: SupernetTrial | None = None
    supernet_trials: int | None = None
    supernet_trials_ended: int | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: object) -> "Manifest":
        """Inverse of `to_dict`; a RunError names the file `source` and all keys that are missing or wrong."""
        flat = {key: value for key, value in values.items() if key != "schema_version"}
        search = {key: flat.pop(key) for key in SearchIdentity.model_fields if key in flat}
        return cls._checked({**flat, "search": search or None}, source)

    def shares_data_with(self, other: "Manifest") -> bool:
        """Whether both are on the same images, as far as that is known: by classes, and a spec or a split in common."""
        specs = {manifest.images.spec for manifest in (self, other) if manifest.images}
        known = len(specs) < 2 or bool(self.splits.items() & other.splits.items())
        return self.class_names == other.class_names and known

    @property
    def data_words(self) -> str:
        """Its images, for people."""
        spec = self.images.spec if self.images else "?"
        return f"{spec}, {len(self.class_names)} classes, train split {self.splits.get('train', '?')[:8]}"

    def updated(self, changes: "ManifestChanges", source: object) -> "Manifest":
        """A copy with other values; raises as `from_dict` does."""
        return self._checked({**dict(self), **changes}, source)

    @classmethod
    def _checked(cls, values: Mapping[str, Any], source: object) -> "Manifest":
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, problem['loc'])).removeprefix('search.')}: {problem['msg']}"
                for problem in error.errors(include_url=False)
            ]
            text = f"{source} cannot be used: {'; '.join(problems)}"
            raise RunError(text, hint="restore it from a copy") from error

    def to_dict(self) -> dict[str, Any]:
        """JSON values of the file; what is None is left out."""
        values = self.model_dump(mode="json")
        search = values.pop("search") or {}
        known = type(self).model_fields
        kept = {key: value for key, value in values.items() if value is not None or key not in known}
        return {**kept, **search, "schema_version": SCHEMA_VERSION}


class ManifestChanges(TypedDict, total=False):
    """What changes in a manifest while a run goes on; see there."""

    stage: Stage
    search: SearchIdentity
    supernet_digest: str
    images: ImagePlace
    budget: SearchBudget
    plan: RunPlan
    finalists: FinalistsProgress | None
    supernet_trial: SupernetTrial
    supernet_trials: int
    supernet_trials_ended: int
