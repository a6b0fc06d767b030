"""Small real objects for tests: architectures, measurements, trials, fronts."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.backbone import Backbone
from nas.base.metrics import LATENCY, MACS, TOP1, Objective
from nas.runs.manifest import Manifest, SearchIdentity
from nas.runs.point import FrontPoint
from nas.runs.trial import Conditions, Measurement, Timed, Trial, TrialState

OBJECTIVES = (Objective(TOP1, 0.0), Objective(MACS, 10e6), Objective(LATENCY, 20.0))


def backbone(**changes: Any) -> Backbone:
    """16 x 16 grey images, 4 x 4 patches: 16 patch tokens, heads of 8 channels, 10 classes."""
    fixed = {"image_size": 16, "patch_size": 4, "in_chans": 1, "num_classes": 10, "head_dim": 8}
    return Backbone(**{**fixed, **changes})


def plain(depth: int = 3, embed_dim: int = 24, num_heads: int = 3, mlp_ratio: float = 2) -> Architecture:
    """All-dynamic, no reduction: the plain ViT on `backbone()`."""
    layer = LayerChoice(num_tokens=16, num_heads=num_heads, mlp_ratio=mlp_ratio)
    return Architecture(embed_dim=embed_dim, layers=(layer,) * depth)


def varied() -> Architecture:
    """One layer of every kind; tokens are pooled once, then gathered by glad to a number that is no square."""
    hallucinated = {"num_heads": 3, "hallucination_ratio": 0.5}
    layers: tuple[dict[str, Any], ...] = (
        {"num_heads": 3},
        {"num_heads": 3, "attention": "shared"},
        {"num_heads": 2, "hallucination_ratio": 0.5, "mlp_ratio": 3},
        {"num_tokens": 4, "num_heads": 2, "attention": "static", "reducer": "conv_pool"},
        {"num_tokens": 4, **hallucinated, "hallucination": "mix_conv"},
        {"num_tokens": 4, **hallucinated, "hallucination": "mix", "attention": "shared", "ffn_rank": 0.5},
        {"num_tokens": 4, "num_heads": 2, "attention": "linear"},
        {"num_tokens": 3, "num_heads": 1, "reducer": "glad", "ffn_rank": 0.25},
        {"num_tokens": 3, "num_heads": 3, "attention": "linear"},
    )
    plain_layer = {"num_tokens": 16, "mlp_ratio": 2}
    return Architecture(embed_dim=24, layers=tuple(LayerChoice(**(plain_layer | la)) for la in layers))


def random_architecture(rng: np.random.Generator, depth: int = 4, embed_dim: int = 24) -> Architecture:
    """Any mix of kinds on `backbone()` that `Architecture` allows."""
    layers: list[LayerChoice] = []
    tokens = 16
    for i in range(depth):
        fewer = tokens > 3 and i > 0 and rng.random() < 0.25
        on_grid = all(layer.reducer != "glad" for layer in layers)
        reducers = ["pool", "conv_pool", "glad"] if on_grid and tokens > 4 else ["glad"]
        reducer = rng.choice(reducers) if fewer else None
        if fewer:
            tokens = 3 if tokens == 4 or (reducer == "glad" and rng.random() < 0.5) else 4
        provider = next((la for la in reversed(layers) if la.attention != "shared"), None)
        may_share = provider is not None and provider.attention == "dynamic" and not fewer
        kind = rng.choice(["dynamic", "static", "linear", *(["shared"] * may_share)])
        shared = provider if kind == "shared" else None
        ratio = shared.hallucination_ratio if shared else 0.5 if kind == "dynamic" else 0.0
        layers.append(
            LayerChoice(
                num_tokens=tokens,
                num_heads=shared.num_heads if shared else int(rng.integers(1, 4)),
                mlp_ratio=float(rng.integers(1, 4)),
                attention=kind,
                reducer=reducer,
                hallucination_ratio=float(rng.choice([0, ratio])),
                hallucination=rng.choice(["copy", "mix", "mix_conv"]),
                ffn_rank=float(rng.choice([0.25, 0.5, 1])),
            )
        )
    grids = list(accumulate((layer.reducer != "glad" for layer in layers), min))
    convolves = np.random.default_rng(len(layers) + layers[0].num_heads).random(depth) < 0.4  # whatever `rng` gave
    layers = [replace(la, ffn_conv=bool(c) and g) for la, c, g in zip(layers, convolves, grids, strict=True)]
    return Architecture(embed_dim=embed_dim, layers=tuple(layers))


def distinct_architectures(count: int, seed: int = 0) -> list[Architecture]:
    """As many different architectures as asked for."""
    rng = np.random.default_rng(seed)
    found: dict[str, Architecture] = {}
    while len(found) < count:
        architecture = random_architecture(rng)
        found[architecture.digest] = architecture
    return list(found.values())


def conditions(**changes: Any) -> Conditions:
    fixed = {
        "device": "cpu: Test CPU",
        "precision": "fp32",
        "split": "search",
        "num_images": 144,
        "target": "torch-cpu",
        "latency_batch_size": 64,
        "latency_threads": 1,
        "latency_stage": "exclusive",
        "supernet": "0123456789ab",
        "torch": "2.8.0",
    }
    return Conditions(**{**fixed, **changes})


def measurement(
    top1: float = 90.0, macs: float = 2e6, latency_ms: float | None = 5.0, params: float | None = 2e4, **changes: Any
) -> Measurement:
    """Values with an interval of +-2 % for latency; `changes` go to the conditions."""
    return Measurement(
        top1=top1,
        macs=macs,
        params=params,
        latency={} if latency_ms is None else {"latency_ms": timed(latency_ms)},
        conditions=conditions(**changes),
        seconds=0.5,
    )


def timed(ms: float, **changes: Any) -> Timed:
    """A latency with an interval of +-2 %."""
    return Timed(**{"ms": ms, "interval": (ms * 0.98, ms * 1.02), **changes})


def trial(number: int, architecture: Architecture | None = None, **changes: Any) -> Trial:
    """A complete trial; any field of `Trial` can be replaced."""
    fixed: dict[str, Any] = {
        "state": TrialState.COMPLETE,
        "measurement": measurement(),
        "started": 1_000.0 + number,
        "finished": 1_002.0 + number,
    }
    return Trial(number=number, architecture=architecture or plain(), **{**fixed, **changes})


def trials_of(values: Sequence[Sequence[float]], seed: int = 0) -> list[Trial]:
    """One complete trial a row of (top-1 %, MACs, latency ms), each of another architecture."""
    pairs = zip(values, distinct_architectures(len(values), seed), strict=True)
    return [trial(i, a, measurement=measurement(*row)) for i, (row, a) in enumerate(pairs)]


def point(top1: float, macs: float, latency_ms: float, architecture: Architecture | None = None) -> FrontPoint:
    return FrontPoint(architecture or plain(), measurement(top1, macs, latency_ms))


def search_identity(**changes: Any) -> SearchIdentity:
    """What a search of `OBJECTIVES` is measured by; any field can be replaced."""
    fixed = {"objectives": OBJECTIVES, "reference_ms": 5.0, "reference_digest": "0" * 12}
    return SearchIdentity(**{**fixed, **changes})


def manifest(**changes: Any) -> Manifest:
    """Of a run that is searching; any field can be replaced."""
    fixed: dict[str, Any] = {
        "command": "python search.py run digits.yaml",
        "space_file": "digits.yaml",
        "space_settings": (),
        "space_digest": "813220064558",
        "seed": 0,
        "versions": {"torch": "2.8.0"},
        "class_names": tuple("0123456789"),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "splits": {"train": "1" * 16, "search": "2" * 16, "test": "3" * 16},
        "precision": "fp32",
        "device": "cpu: test",
        "threads": 1,
        "stage": "searching",
        "search": search_identity(),
    }
    return Manifest(**{**fixed, **changes})


def rank_rows(inherited, *by_seed, macs=None, tokens=None):
    """Rows of `rank_statistics`; without costs, MACs and tokens are in two orders of their own."""
    count = len(inherited)
    macs = np.random.default_rng(1).permutation(count) if macs is None else macs
    tokens = np.random.default_rng(2).permutation(count) if tokens is None else tokens
    return [
        {
            "inherited_top1": inherited[i],
            "stand_alone_top1": float(np.mean([values[i] for values in by_seed])),
            "stand_alone_top1_by_seed": [values[i] for values in by_seed],
            "macs": int(macs[i]),
            "mean_tokens": float(tokens[i]),
        }
        for i in range(count)
    ]


def noisy_accuracies(count=24, noise=0.5, seed=0):
    """Inherited accuracy, and two seeds alone, around the same order."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=count)
    return [50 + 10 * (quality + noise * rng.normal(size=count)) for _ in range(3)]
