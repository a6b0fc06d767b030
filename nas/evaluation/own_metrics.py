"""Metrics that are functions: of a Python program, and agreement. Called, and what they return checked."""

import math
from collections.abc import Sequence
from functools import partial
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional

from nas.base import AGREEMENT, ConfigError, EvaluationError
from nas.data import ImageSet
from nas.latency import random_subnet
from nas.model import Subnet
from nas.settings import OwnMetric
from nas.space import SearchSpace


def agreement(features: Tensor, whole: Tensor) -> float:
    """Mean over images of the cosine between their features and those of the whole network, percent; 100 is the same.

    Shapes: [N, d], d <= D, and [N, D], both less their mean over images, without which all cosines are near 1. Channels
    are the first ones of the whole network's, as its classifier reads them, and those that are missing are 0. No label
    and no class is needed, and a classifier that is random is not asked.
    """
    padded = functional.pad(features - features.mean(dim=0), (0, whole.shape[1] - features.shape[1]))
    return 100 * float(functional.cosine_similarity(padded, whole - whole.mean(dim=0)).mean())


AGREES = OwnMetric(name=AGREEMENT.name, unit=AGREEMENT.unit, direction=AGREEMENT.direction, of_features=agreement)


def of_network(metrics: Sequence[OwnMetric], network: Subnet) -> dict[str, float]:
    """What the metrics of a network say of one, by their names; an EvaluationError: one raises, or it is no number."""
    return {m.name: _number(m, m.of_network(network)) for m in metrics if m.of_network is not None}


def of_logits(metrics: Sequence[OwnMetric], logits: Tensor, labels: Tensor) -> dict[str, float]:
    """The same of those of logits [N, K] and labels [N], on a CPU."""
    return {m.name: _number(m, m.of_logits(logits, labels)) for m in metrics if m.of_logits is not None}


def of_features(metrics: Sequence[OwnMetric], features: Tensor, whole: Tensor) -> dict[str, float]:
    """The same of those of features [N, d] and those of the whole network [N, D], float32 on a CPU."""
    return {m.name: _number(m, m.of_features(features, whole)) for m in metrics if m.of_features is not None}


def check_metrics(metrics: Sequence[OwnMetric], space: SearchSpace, images: ImageSet) -> None:
    """Call every function once, before hours of training.

    Those of logits and features see random ones of the whole search split, those of a network the smallest one,
    untrained.

    Raises:
        ConfigError: One raises, or returns what is no finite number.
    """
    if not metrics:
        return
    network = random_subnet(space.backbone, space.smallest())
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    logits = draw(len(images), images.info.num_classes)
    features = [draw(len(images), width) for width in (min(space.embed_dim), max(space.embed_dim))]
    labels = torch.tensor(images.labels)
    for metric in metrics:
        try:
            of_network([metric], network)
            of_logits([metric], logits, labels)
            of_features([metric], *features)
        except Exception as error:
            reason = error.message if isinstance(error, EvaluationError) else f"{type(error).__name__}: {error}"
            kind = "random logits" if metric.of_logits else "random features" if metric.of_features else ""
            text = f"metric {metric.name}, tried on {kind or 'an untrained network'}: {reason}"
            hint = "of_logits(logits, labels), of_features(features, whole) and of_network(network) return a number"
            raise ConfigError(text, hint=hint) from error


def _number(metric: OwnMetric, value: object) -> float:
    value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if not isinstance(value, Real) or not math.isfinite(value):
        raise EvaluationError(f"{metric.name} is {value!r}, not a finite number")
    return float(value)
