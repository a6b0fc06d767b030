"""The gradients of one training step: which subnet sees which images, and what it learns from.

Shape letters: B images of the batch over all processes, b of this one, K classes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.arch import Architecture
from nas.model import Supernet
from nas.settings import TrainConfig
from nas.training.distill import soft_cross_entropy
from nas.training.schedule import guidance_at
from nas.training.world import World


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bf16 autocast where `precision` asks for it; otherwise nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Computes the gradients of one step after another.

    The first subnet of a sandwich, the largest, learns the labels on the whole batch. The others, or all of a
    single-path step, are its students: they share the batch out among themselves. Each loss is a mean over the images
    of the whole batch that the subnet sees, whichever process has them; the students' are averaged. Drop path is for
    the largest, or for all of a single-path step.

    Source: sandwich rule, arXiv 1903.05134. Differs: the students' losses are averaged, not summed, and each sees a
    part of the batch: with all of it a step takes 1.14 times as long and nothing is better
    (results/reference/recipes.csv).
    """

    supernet: Supernet  # gets the gradients
    config: TrainConfig  # recipe
    precision: str  # `fp32` or `bf16`
    world: World  # the processes that share the batch
    # answers for the largest subnet, and teaches it too; None: the largest teaches
    teacher: Callable[[Tensor], Tensor] | None = None
    class_weights: Tensor | None = None  # [K], what an image of each class counts in every loss; None: 1

    weights: tuple[nn.Parameter, ...] = field(init=False)
    """The supernet's parameters: looking for them anew takes as long as some of its networks do."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.supernet.parameters()))

    def run(
        self, images: Tensor, targets: Tensor, architectures: Sequence[Architecture], progress: float
    ) -> list[float]:
        """Leave the gradients in the supernet; those of weights that were not used are None.

        Images [B, C, S, S], targets (labels [B] or class shares [B, K]) and architectures are those of the whole batch,
        the same in every process; progress is steps done / steps in all. Returns the cross-entropy with the labels of
        each architecture, nats, (weighted) mean over the images that it saw.
        """
        mine = self.world.share(len(images))
        batch = _Batch(images[mine], targets[mine], mine.start, len(images))
        taught: Tensor | None = None
        if self.teacher is not None:
            with autocast(images.device, self.precision):
                taught = self.teacher(batch.images).float()
        if not self.supernet.training:
            self.supernet.train()
        for weight in self.weights:
            weight.grad = None
        losses: list[Tensor] = []
        students = list(architectures)
        if self.config.rule == "sandwich":
            leader, *students = students
            logits, loss = self._backward(leader, batch, taught, progress, leads=True)
            losses.append(loss)
            taught = logits if taught is None else taught
        for i, student in enumerate(students):
            share, total = batch.share(i, len(students))
            part = _Batch(batch.images[share], batch.targets[share], batch.start, total)
            told = None if taught is None else taught[share]
            _, loss = self._backward(student, part, told, progress, leads=False, number=len(students))
            losses.append(loss)
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        values = torch.stack(losses)
        self.world.add_up([*gradients, values])
        return values.tolist()

    @torch.no_grad()
    def measure(
        self, images: Tensor, targets: Tensor, architectures: Sequence[Architecture], progress: float
    ) -> list[float]:
        """Cross-entropy with the labels of each architecture, nats, as it is trained at this progress; no gradient."""
        self.supernet.eval()
        guidance = guidance_at(progress, self.config)
        with autocast(images.device, self.precision):
            logits = [self.supernet(images, a, guidance=guidance).float() for a in architectures]
            losses = [self._label_losses(every, targets).mean() for every in logits]
        return torch.stack(losses).tolist()

    def _backward(
        self,
        architecture: Architecture,
        batch: "_Batch",
        taught: Tensor | None,
        progress: float,
        *,
        leads: bool,
        number: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Backward pass of one of `number` subnets of a kind; returns its logits, and its loss against the labels."""
        guidance = guidance_at(progress, self.config)
        drop_path = self.config.drop_path if leads or self.config.rule == "single_path" else 0.0
        with autocast(batch.images.device, self.precision):
            logits = self.supernet(batch.images, architecture, drop_path=drop_path, guidance=guidance)
        logits = logits.float()
        loss = labelled = self._label_losses(logits, batch.targets).sum() / batch.total
        if taught is not None and self.config.distill != "none":
            soft = soft_cross_entropy(logits, taught, self.config.distill_temperature)
            loss = self._weighted(soft, batch.targets).sum() / batch.total
            if leads:
                loss = (labelled + loss) / 2
        (loss / number).backward()  # type: ignore[no-untyped-call]
        return logits.detach(), labelled.detach()

    def _label_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        smoothing = self.config.label_smoothing if targets.ndim == 1 else 0.0  # Mixup has smoothed them
        losses = functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        return self._weighted(losses, targets)

    def _weighted(self, losses: Tensor, targets: Tensor) -> Tensor:
        """Losses [b], each times what its image counts: of a mixture of classes, their shares of it."""
        if self.class_weights is None:
            return losses
        weights = self.class_weights
        return losses * (weights[targets] if targets.ndim == 1 else targets.to(weights.dtype) @ weights)


@dataclass(frozen=True, slots=True)
class _Batch:
    """This process's images: [b, C, S, S], their targets, the first one's place in the batch, and B."""

    images: Tensor
    targets: Tensor
    start: int
    total: int

    def share(self, number: int, count: int) -> tuple[slice, int]:
        """Of `count` students, the images of one: every `count`-th of the batch; and how many of B these are."""
        first = (number - self.start) % count
        return slice(first, None, count), len(range(number, self.total, count))
