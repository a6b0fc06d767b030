"""Metrics of a Python program: their functions called, and what they return checked."""

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from nas.base import ConfigError, EvaluationError
from nas.data import ImageSet
from nas.model import Subnet
from nas.settings import OwnMetric
from nas.space import SearchSpace


def of_network(metrics: Sequence[OwnMetric], network: Subnet) -> dict[str, float]:
    """What the metrics of a network say of one, by their names; an EvaluationError: one raises, or it is no number."""
    return {m.name: _number(m, m.of_network(network)) for m in metrics if m.of_network is not None}


def of_logits(metrics: Sequence[OwnMetric], logits: Tensor, labels: Tensor) -> dict[str, float]:
    """The same of those of logits [N, K] and labels [N], on a CPU."""
    return {m.name: _number(m, m.of_logits(logits, labels)) for m in metrics if m.of_logits is not None}


def check_metrics(metrics: Sequence[OwnMetric], space: SearchSpace, images: ImageSet) -> None:
    """Call every function once, before hours of training.

    Those of logits see random ones of the whole search split, those of a network the smallest one, untrained.

    Raises:
        ConfigError: One raises, or returns what is no finite number.
    """
    if not metrics:
        return
    network = Subnet(space.backbone, space.smallest()).eval()
    logits = torch.randn(len(images), images.info.num_classes, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor(images.labels)
    for metric in metrics:
        try:
            of_network([metric], network)
            of_logits([metric], logits, labels)
        except Exception as error:
            reason = error.message if isinstance(error, EvaluationError) else f"{type(error).__name__}: {error}"
            tried = "random logits" if metric.of_logits else "an untrained network"
            text = f"metric {metric.name}, tried on {tried}: {reason}"
            raise ConfigError(text, hint="of_logits(logits, labels) and of_network(network) return a number") from error


def _number(metric: OwnMetric, value: object) -> float:
    value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if not isinstance(value, Real) or not math.isfinite(value):
        raise EvaluationError(f"{metric.name} is {value!r}, not a finite number")
    return float(value)
