"""Which images a classifier gets right."""

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.base import EvaluationError
from nas.data import ImageSet
from nas.evaluation.racing import Verdict
from nas.model import Subnet, SubnetTree
from nas.runs import Measurement


def count_correct(
    model: Callable[[Tensor], Tensor], images: ImageSet, *, batch_size: int, device: torch.device, precision: str
) -> NDArray[np.bool_]:
    """Which images the model classifies right, [N] bool.

    The model, in evaluation mode and on the device, or another program: normalised images [B, 3, S, S] -> logits
    [B, K]. Small batches stay in the cache of a CPU; `bf16` computes under autocast, `fp32` does not.

    Raises:
        EvaluationError: A logit is not finite.
    """
    correct = np.empty(len(images), dtype=bool)
    with _inference(device, precision):
        for start, pixels in _batches(images, batch_size, device):
            correct[start : start + len(pixels)] = _are_right(model(pixels), images.labels, start)
    return correct


def count_together(
    tree: SubnetTree,
    wanted: Collection[int],
    images: ImageSet,
    *,
    batch_size: int,
    device: torch.device,
    precision: str,
    hear: Callable[[int, int, Tensor, Tensor], None] = lambda *_: None,
) -> tuple[dict[int, NDArray[np.bool_]], dict[int, Exception]]:
    """Which images each of the wanted subnets of a tree classifies right, [N] bool, as `count_correct` finds.

    Those that cannot be measured are left out; second is why, by their numbers. `hear` is told the number of a subnet,
    that of its first image, its features and its logits, batch by batch.
    """
    correct = {number: np.empty(len(images), dtype=bool) for number in wanted}
    failed: dict[int, Exception] = {}
    with _inference(device, precision):
        for start, pixels in _batches(images, batch_size, device):
            answers, errors = tree.answers(pixels, correct.keys())
            for number, (features, logits) in answers.items():
                try:
                    correct[number][start : start + len(pixels)] = _are_right(logits, images.labels, start)
                    hear(number, start, features, logits)
                except EvaluationError as error:
                    errors[number] = error
            failed |= errors
            correct = {number: right for number, right in correct.items() if number not in errors}
    return correct, failed


def features_of(model: Subnet, images: ImageSet, *, batch_size: int, device: torch.device, precision: str) -> Tensor:
    """What goes into the classifier of a network in evaluation mode on the device, [N, D] float32 on a CPU."""
    with _inference(device, precision):
        batches = [
            model.forward_head(model.forward_features(pixels), pre_logits=True).float().cpu()
            for _, pixels in _batches(images, batch_size, device)
        ]
    return torch.cat(batches)


@contextmanager
def _inference(device: torch.device, precision: str) -> Iterator[None]:
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield


def _batches(images: ImageSet, batch_size: int, device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
    """First number and pixels of every batch."""
    for start in range(0, len(images), batch_size):
        yield start, images.normalized(slice(start, start + batch_size)).to(device)


def _are_right(logits: torch.Tensor, labels: NDArray[np.int64], start: int) -> NDArray[np.bool_]:
    """Whether the logits [B, K] of images from one number on say what the labels do."""
    if not torch.isfinite(logits).all():
        raise EvaluationError(f"logits of images {start} to {start + len(logits) - 1} are not finite")
    right: NDArray[np.bool_] = logits.argmax(dim=1).cpu().numpy() == labels[start : start + len(logits)]
    return right


def top1_percent(correct: NDArray[np.bool_]) -> float:
    """Share of right answers, percent."""
    return 100.0 * float(correct.sum()) / len(correct)


def balanced_percent(correct: NDArray[np.bool_], labels: NDArray[np.integer[Any]]) -> float:
    """Mean over the classes that have images of the share of right answers, percent, from exact counts."""
    right, images = _per_class(correct, labels)
    return 100.0 * math.fsum(right / images) / len(images)


def balanced_interval(correct: NDArray[np.bool_], labels: NDArray[np.integer[Any]]) -> tuple[float, float]:
    """95 % interval of the balanced accuracy that the images stand for, percent.

    The classes are strata: Wilson's interval of each is put together by how far its ends are from its share, squared
    (MOVER, Zou and Donner 2008), so that few images of a class make it wide, also where all are right.
    """
    right, images = _per_class(correct, labels)
    share, z = right / images, 1.959963984540054
    middle = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2)) / (1 + z**2 / images)
    low, high = (float(np.sqrt(((end - share) ** 2).sum())) for end in (middle - half, middle + half))
    mean = math.fsum(share)
    ends = (100.0 * (mean - low) / len(images), 100.0 * (mean + high) / len(images))
    return max(ends[0], 0.0), min(ends[1], 100.0)


def _per_class(
    correct: NDArray[np.bool_], labels: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Right answers and images of each class that has any."""
    images = np.bincount(labels)
    right = np.bincount(labels[correct], minlength=len(images))
    return right[images > 0], images[images > 0]


def wilson_interval(correct: NDArray[np.bool_]) -> tuple[float, float]:
    """95 % interval of the accuracy that the images stand for, percent (Wilson's score)."""
    right, number, z = int(correct.sum()), len(correct), NormalDist().inv_cdf(0.975)
    centre = (right + z**2 / 2) / (number + z**2)
    half = z / (number + z**2) * math.sqrt(right * (number - right) / number + z**2 / 4)
    return 100 * (centre - half if right else 0.0), 100 * (centre + half if right < number else 1.0)


def paired_loss(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[float, tuple[float, float]]:
    """Points of top-1 that were lost from one model to another on the same images [N], and their 95 % interval.

    Only images count that one of the two gets right: the error is that of the difference, which is far less than that
    of either share where the models seldom disagree (Agresti and Min 2005: half an image more in every cell).
    """
    number = len(before) + 2
    lost, won = (float((one & ~other).sum()) + 0.5 for one, other in ((before, after), (after, before)))
    middle = 100.0 * (lost - won) / number
    half = 100.0 * 1.959963984540054 * math.sqrt(lost + won - (lost - won) ** 2 / number) / number
    return top1_percent(before) - top1_percent(after), (middle - half, middle + half)


def with_answers(
    costs: Measurement,
    correct: NDArray[np.bool_],
    verdict: Verdict | None = None,
    labels: NDArray[np.integer[Any]] | None = None,
) -> Measurement:
    """A measurement with what the answers to images say of top-1, all of them unless there is a verdict: it was beaten.

    `costs` is all else; its conditions are those of a measurement on all images. With labels, which go with all of
    them, also what the answers say of balanced accuracy.
    """
    answers = np.packbits(correct).tobytes()
    if verdict is None:
        if labels is not None:
            balanced, interval = balanced_percent(correct, labels), balanced_interval(correct, labels)
            costs = replace(costs, balanced_top1=balanced, balanced_top1_interval=interval)
        return replace(costs, top1=top1_percent(correct), top1_interval=wilson_interval(correct), correct=answers)
    return replace(
        costs,
        top1_interval=verdict.top1_interval,
        conditions=replace(costs.conditions, num_images=len(correct)),
        correct=answers,
        beaten_by=verdict.beaten_by,
    )
