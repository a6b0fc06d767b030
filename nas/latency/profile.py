"""A latency profile: architectures measured on a target, and a predictor that they teach.

The cost of a layer depends on its neighbours: a map that a later layer takes is written to memory, one that nobody
takes never is. So the predictor sees whole architectures: for each kind of operation how much of it there is. A
non-negative sum of these is fitted to relative errors. A Gaussian process on what it leaves, ridge regression, and a
Gaussian process alone predicted no better on 60 architectures of two spaces.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.arch import Architecture, Backbone, cost, feed_forward_features, sizes_of
from nas.base import (
    SCHEMA_VERSION,
    ConfigError,
    NasError,
    atomic_write_bytes,
    check_schema,
    command_line,
    read_json,
    writing,
)
from nas.latency.meter import rank_tau
from nas.settings import OURS, Target, parse_target
from nas.space import SearchSpace

FOLDS = 10
LEAST_ARCHITECTURES = 12
DRAWS = 12  # stratified draws from which each measured architecture is chosen
AS_WRITTEN = ("batch", "device", "cores", "versions")  # fields that are JSON values
PROFILE_NAME = "profile"  # with it begins `Conditions.target` of what was predicted

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """How well latency is predicted for architectures that were not measured.

    Attributes:
        mape: Mean absolute error, percent of the measured latency.
        tau: Kendall's rank correlation of predicted and measured latency.
    """

    mape: float
    tau: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyProfile:
    """What was measured, where, and how well it predicts.

    Attributes:
        batch: Images per forward pass.
        device: Name of the processor.
        versions: Of the packages that computed.
        measured: Milliseconds per batch of architectures, with random weights.
        scores: Cross-validated, of the predictor and of the baselines `MACs` and `mean tokens`.
    """

    target: Target
    batch: int
    device: str
    cores: int
    versions: Mapping[str, str]
    backbone: Backbone
    measured: Mapping[Architecture, float]
    scores: Mapping[str, Score] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`Conditions.target` of a predicted latency; profiles with other measurements have other names."""
        rows = [[architecture.digest, f"{ms:.9g}"] for architecture, ms in self.measured.items()]
        digest = sha256(json.dumps(rows).encode()).hexdigest()[:8]
        return f"{PROFILE_NAME} {digest} of {self.target.kind} on {self.device}"

    @property
    def losses(self) -> list[str]:
        """Where a baseline is better; a profile with any is not used."""
        ours = self.scores[OURS]
        return [
            f"{name} predicts with {theirs.mape:.1f} % and tau {theirs.tau:.3f}, "
            f"the profile with {ours.mape:.1f} % and tau {ours.tau:.3f}"
            for name, theirs in self.scores.items()
            if name != OURS and (theirs.mape < ours.mape or theirs.tau > ours.tau)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "target": str(self.target),
            **{name: getattr(self, name) for name in AS_WRITTEN},
            "backbone": self.backbone.to_dict(),
            "scores": {name: asdict(score) for name, score in self.scores.items()},
            "measured": [
                {"latency_ms": ms, "architecture": architecture.to_dict()} for architecture, ms in self.measured.items()
            ],
        }

    def write(self, path: Path) -> None:
        """Write the file, atomically; a DiskError where it cannot be written."""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, (json.dumps(self.to_dict(), indent=1) + "\n").encode())


def read_profile(path: Path) -> LatencyProfile:
    """Read a profile; a ConfigError: there is none, it is damaged, or a baseline predicts better."""
    try:
        values = read_json(path)
        check_schema(values, str(path))
        profile = LatencyProfile(
            target=parse_target(values["target"]),
            backbone=Backbone(**values["backbone"]),
            measured={
                Architecture.from_dict(row["architecture"]): float(row["latency_ms"]) for row in values["measured"]
            },
            scores={name: Score(**score) for name, score in values["scores"].items()},
            **{name: values[name] for name in AS_WRITTEN},
        )
        losses = profile.losses
    except (OSError, ValueError, KeyError, TypeError, AttributeError, NasError) as error:
        raise ConfigError(
            f"{path} is no latency profile: {error}",
            hint=f"{command_line('latency', 'profile', 'SPACE', '--target', 'T', '--to', 'FILE.json')} writes one",
        ) from error
    if losses:
        raise ConfigError(
            f"{path} is not used: " + "; ".join(losses),
            hint="measure more architectures on a quieter machine, or search by MACs",
        )
    return profile


def mismatches(profile: LatencyProfile, backbone: Backbone) -> list[str]:
    """Where a profile's networks have another fixed part than those of a space; the classes may differ."""
    return [
        f"{field.name} is {getattr(profile.backbone, field.name)} in the profile and "
        f"{getattr(backbone, field.name)} in the space"
        for field in fields(Backbone)
        if field.name not in ("num_classes", "timm")
        and getattr(profile.backbone, field.name) != getattr(backbone, field.name)
    ]


class Predictor:
    """Latency of architectures from a profile, milliseconds per batch; the same in every process."""

    def __init__(self, profile: LatencyProfile) -> None:
        from sklearn.linear_model import LinearRegression

        self.backbone = profile.backbone
        self._names, table = feature_table(profile.measured, self.backbone)
        latency_ms = np.array([*profile.measured.values()])
        scale = np.where(table.any(axis=0), table.max(axis=0), 1.0)
        fitted = LinearRegression(positive=True, fit_intercept=False)
        fitted.fit(table / scale, latency_ms, sample_weight=latency_ms**-2.0)
        self._weights = fitted.coef_ / scale

    def predict(self, architectures: Sequence[Architecture]) -> list[float]:
        """Milliseconds per batch."""
        _, table = feature_table(architectures, self.backbone, self._names)
        return [float(value) for value in table @ self._weights]


def feature_table(
    architectures: Iterable[Architecture], backbone: Backbone, names: Sequence[str] | None = None
) -> tuple[Sequence[str], Floats]:
    """Names of the features, all that occur unless they are given, and a row of their values for each architecture."""
    rows = [features(architecture, backbone) for architecture in architectures]
    names = sorted({name for row in rows for name in row}) if names is None else names
    return names, np.array([[row.get(name, 0.0) for name in names] for row in rows])


def features(architecture: Architecture, backbone: Backbone) -> dict[str, float]:
    """How much there is of everything that takes time, in a unit of its own each."""
    found: Counter[str] = Counter({"one": 1.0})
    prefix, is_patched = backbone.num_prefix_tokens, architecture.stem == "patch"
    for i, operation in enumerate(cost.breakdown(architecture, backbone)):
        if operation.layer is None:
            found["outside" if i or is_patched else operation.operation] += operation.macs
    if not is_patched:
        found[f"stem {architecture.stem}"] += 1
    for i, (layer, width) in enumerate(zip(architecture.layers, architecture.widths, strict=True)):
        context = architecture.context(i, backbone)
        kind, tokens = layer.attention, layer.num_tokens + prefix
        for name, macs, _ in cost.layer_cost(layer, context, width, backbone):
            if name in ("scores", "mix_values", "hallucinate"):
                derived = "" if layer.hallucination is None else f" {layer.hallucination}"
                found[f"{name} {kind}{derived}"] += macs
            elif name == "mlp":
                for feature, amount in feed_forward_features(layer.ffn_rank, macs).items():
                    found[feature] += amount
            elif macs:
                found[name] += macs
        for feature, amount in layer.kind.features(sizes_of(layer, context, width, backbone)).items():
            found[feature] += amount
        found["channels"] += tokens * width
        found["hidden"] += tokens * architecture.hidden_dim(i)
        found[f"layers {kind}"] += 1
        if layer.num_hallucinated:
            found["layers derived"] += 1
        if layer.reducer is not None:
            found[f"reducer {layer.reducer}"] += context.tokens_before * (context.width_before or width)
    return dict(found)


def design(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Architectures to measure: spread evenly over MACs, and each unlike those before it in what takes time.

    The largest and the smallest come first. Fewer are returned where the space has no more.
    """
    rng = np.random.default_rng(seed)
    drawn = [space.largest(), space.smallest()]
    drawn += [space.sample_stratified(rng) for _ in range(DRAWS * count)]
    drawn = list(dict.fromkeys(drawn))
    _, table = feature_table(drawn, space.backbone)
    spread = table.std(axis=0)
    table = (table - table.mean(axis=0)) / np.where(spread > 1e-9, spread, np.inf)
    macs = np.array([cost.macs(architecture, space.backbone) for architecture in drawn])
    stratum = np.argsort(np.argsort(macs)) * count // len(drawn)
    nearest = np.minimum(*(np.linalg.norm(table - table[i], axis=1) for i in (0, min(1, len(drawn) - 1))))
    chosen = list(range(min(2, len(drawn))))
    for i in rng.permutation(count):
        free = [j for j in np.flatnonzero(stratum == i) if j not in chosen]
        if free and len(chosen) < count:
            best = max(free, key=lambda j: nearest[j])
            chosen.append(int(best))
            nearest = np.minimum(nearest, np.linalg.norm(table - table[best], axis=1))
    return [drawn[i] for i in chosen]


def with_scores(profile: LatencyProfile) -> LatencyProfile:
    """A profile with its scores and those of MACs and mean tokens, each on folds left out; a ConfigError: too few."""
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import KFold

    if len(profile.measured) < LEAST_ARCHITECTURES:
        raise ConfigError(
            f"a profile needs at least {LEAST_ARCHITECTURES} architectures, got {len(profile.measured)}",
            hint="--architectures N, or a larger search space",
        )
    architectures, measured = [*profile.measured], np.array([*profile.measured.values()])
    sizes = {
        "MACs": [cost.macs(a, profile.backbone) for a in architectures],
        "mean tokens": [sum(la.num_tokens for la in a.layers) / a.depth for a in architectures],
    }
    predicted = {name: np.empty_like(measured) for name in (OURS, *sizes)}
    folds = KFold(min(FOLDS, len(measured)), shuffle=True, random_state=0)
    for known, left in folds.split(measured):
        part = replace(profile, measured={architectures[i]: float(measured[i]) for i in known})
        predicted[OURS][left] = Predictor(part).predict([architectures[i] for i in left])
        for name, values in sizes.items():
            column = np.log(np.array(values, dtype=float))[:, None]
            line = LinearRegression().fit(column[known], np.log(measured[known]))
            predicted[name][left] = np.exp(line.predict(column[left]))
    return replace(profile, scores={name: _score(values, measured) for name, values in predicted.items()})


def _score(predicted: Floats, measured: Floats) -> Score:
    error = float(100 * np.mean(np.abs(predicted - measured) / measured))
    return Score(error, rank_tau(predicted.tolist(), measured.tolist()) or 0.0)
