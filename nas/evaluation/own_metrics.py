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

CHECKED = 64  # images


def of_network(metrics: Sequence[OwnMetric], network: Subnet) -> dict[str, float]:
    """What the metrics of a network say of one, by their names; an EvaluationError: one raises, or it is no number."""
    return {m.name: _number(m, m.of_network(network)) for m in metrics if m.of_network is not None}


def of_logits(metrics: Sequence[OwnMetric], logits: Tensor, labels: Tensor) -> dict[str, float]:
    """The same of those of logits [N, K] and labels [N], on a CPU."""
    return {m.name: _number(m, m.of_logits(logits, labels)) for m in metrics if m.of_logits is not None}


def check_metrics(metrics: Sequence[OwnMetric], space: SearchSpace, images: ImageSet) -> None:
    """Call every function once, with random weights, before hours of training; a ConfigError says what is wrong."""
    if not metrics:
        return
    network = Subnet(space.backbone, space.smallest()).eval()
    some = slice(0, CHECKED)
    with torch.inference_mode():
        logits, labels = network(images.normalized(some)), torch.tensor(images.labels[some])
    for metric in metrics:
        try:
            of_network([metric], network)
            of_logits([metric], logits, labels)
        except Exception as error:
            reason = error.message if isinstance(error, EvaluationError) else f"{type(error).__name__}: {error}"
            text = f"metric {metric.name} of a network with random weights: {reason}"
            raise ConfigError(text, hint="of_logits(logits, labels) and of_network(network) return a number") from error


def _number(metric: OwnMetric, value: object) -> float:
    value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if not isinstance(value, Real) or not math.isfinite(value):
        raise EvaluationError(f"{metric.name} is {value!r}, not a finite number")
    return float(value)
