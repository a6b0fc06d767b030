"""Which images a classifier gets right."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nas.base import EvaluationError
from nas.data import ImageSet
from nas.evaluation.racing import Verdict
from nas.runs import Measurement


def count_correct(
    model: nn.Module, images: ImageSet, *, batch_size: int, device: torch.device, precision: str
) -> NDArray[np.bool_]:
    """Which images the model classifies right, [N] bool.

    The model is in evaluation mode and on the device: normalised images [B, 3, S, S] -> logits [B, K]. Small batches
    stay in the cache of a CPU; `bf16` computes under autocast, `fp32` does not.

    Raises:
        EvaluationError: A logit is not finite.
    """
    correct = np.empty(len(images), dtype=bool)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for start in range(0, len(images), batch_size):
            chosen = slice(start, start + batch_size)
            logits = model(images.normalized(chosen).to(device))
            if not torch.isfinite(logits).all():
                raise EvaluationError(f"logits of images {start} to {start + len(logits) - 1} are not finite")
            correct[chosen] = logits.argmax(dim=1).cpu().numpy() == images.labels[chosen]
    return correct


def top1_percent(correct: NDArray[np.bool_]) -> float:
    """Share of right answers, percent."""
    return 100.0 * float(correct.sum()) / len(correct)


def wilson_interval(correct: NDArray[np.bool_]) -> tuple[float, float]:
    """95 % interval of the accuracy that the images stand for, percent (Wilson's score, from scipy)."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    interval = binomtest(int(correct.sum()), len(correct)).proportion_ci(0.95, method="wilson")
    return 100.0 * float(interval.low), 100.0 * float(interval.high)


def with_answers(costs: Measurement, correct: NDArray[np.bool_], verdict: Verdict | None = None) -> Measurement:
    """A measurement with what the answers to images say of top-1, all of them unless there is a verdict: it was beaten.

    `costs` is all else; its conditions are those of a measurement on all images.
    """
    answers = np.packbits(correct).tobytes()
    if verdict is None:
        return replace(costs, top1=top1_percent(correct), top1_interval=wilson_interval(correct), correct=answers)
    return replace(
        costs,
        top1_interval=verdict.top1_interval,
        conditions=replace(costs.conditions, num_images=len(correct)),
        correct=answers,
        beaten_by=verdict.beaten_by,
    )
