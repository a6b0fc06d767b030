"""Supernet training: the sandwich rule with in-place distillation from the largest subnet.

Every step is a function of (weights, seed, step): it seeds all random generators itself, so a run that was
killed and resumed reaches the same weights, bit for bit on a CPU, as one that was not.
"""

import hashlib
import math
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import Mixup, create_transform
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.nn import functional

from nas.architecture import Architecture
from nas.config import TrainConfig
from nas.errors import TrainingError
from nas.model.maps import Guidance
from nas.model.supernet import Supernet
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.data import ImageData
from nas.training.guidance import guidance_at
from nas.training.sampling import sandwich

LEAST_EPOCHS = 30
LEAST_CROPPED = 16  # pixels; of an 8 px digit, a crop leaves too little to read
LEAST_STEPS = 1000  # what the digits space needs (results/LOG.md)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainProgress:
    """Where training stands.

    Attributes:
        step: Steps done.
        steps: Steps in all.
        epoch: Passes over the training images done.
        epochs: Passes in all.
        losses: Last loss of the largest (cross-entropy), the smallest and the mean random subnet
            (distillation), nats.
        images_per_second: Training images per second since the start of this process.
        eta_s: Seconds left at that rate.
    """

    step: int
    steps: int
    epoch: float
    epochs: int
    losses: tuple[float, float, float]
    images_per_second: float
    eta_s: float


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bf16 autocast where `precision` asks for it; otherwise nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


class SupernetTrainer:
    """Trains a supernet on the train split.

    Each step: the largest subnet learns the labels on the whole batch; the smallest and the random ones learn
    its soft predictions, each on an equal share of the batch. One optimiser step on the largest's loss plus
    the mean of the others': every image counts once with its label and once with the teacher's answer.

    Training aids of static and linear layers (`guidance_at`) add their losses to that of their pass. In a space
    of one architecture there is nothing to distil: it is trained like any network.

    Args:
        supernet: Trained in place.
        data: Its train split is used, nothing else.
        config: Recipe.
        seed: Of order, augmentation and sampled architectures.
        device: Where to compute.
        precision: `fp32` or `bf16`.
        directory: Checkpoints; a run that finds some resumes.
        start: Gives the supernet its first weights in place, where they are not random; not called by a run
            that resumes.

    Source: sandwich rule and in-place distillation, arXiv 1903.05134; soft targets as BigNAS (arXiv
    2003.11142). Differs: the batch is shared out among the distilled subnets (results/LOG.md compares).
    """

    def __init__(
        self,
        supernet: Supernet,
        data: ImageData,
        config: TrainConfig,
        *,
        seed: int,
        device: torch.device,
        precision: str,
        directory: Path,
        start: Callable[[Supernet], None] | None = None,
    ) -> None:
        self.start = start
        self.supernet, self.data, self.config = supernet.to(device), data, config
        self.seed, self.device, self.precision, self.directory = seed, device, precision, directory
        self.steps_per_epoch = max(len(data.train) // config.batch_size, 1)
        enough = max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / self.steps_per_epoch))
        self.epochs = enough if config.epochs is None else config.epochs
        self.steps = self.epochs * self.steps_per_epoch
        self.optimizer = create_optimizer_v2(
            supernet, opt="adamw", lr=config.lr, weight_decay=config.weight_decay
        )
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer,
            sched="cosine",
            num_epochs=max(1, self.epochs),
            warmup_epochs=config.warmup_epochs,
            warmup_lr=config.lr / 100,
            min_lr=config.lr / 100,
            step_on_epochs=False,
            updates_per_epoch=self.steps_per_epoch,
        )
        self.ema = ModelEmaV3(supernet, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
        self.transform = _augmentation(data, config, supernet.space.backbone.image_size)
        self.mixup = None
        if config.mixup or config.cutmix:
            self.mixup = Mixup(
                mixup_alpha=config.mixup,
                cutmix_alpha=config.cutmix,
                label_smoothing=config.label_smoothing,
                num_classes=data.num_classes,
            )

    def run(self, on_progress: Callable[[TrainProgress], None] = lambda _: None) -> Supernet:
        """Train to the end, from the newest checkpoint where there is one.

        Returns:
            The supernet with averaged weights, in evaluation mode.

        Raises:
            TrainingError: The loss is not finite.
            CheckpointError: The checkpoints are damaged or belong to another space, data or recipe.
        """
        resumed = self.resume()
        first = resumed or 0
        if resumed is None and self.start is not None:
            self.start(self.supernet)
            if self.ema is not None:
                self.ema.set(self.supernet)
        if resumed is None and not self.steps:
            self.save(0)
        started = saved = time.monotonic()
        for step in range(first, self.steps):
            losses = self.train_step(step)
            done, now = step + 1, time.monotonic()
            if done == self.steps or now - saved > 60 * self.config.checkpoint_minutes:
                self.save(done)
                saved = now
            rate = (done - first) * self.config.batch_size / max(now - started, 1e-9)
            on_progress(
                TrainProgress(
                    step=done,
                    steps=self.steps,
                    epoch=done / self.steps_per_epoch,
                    epochs=self.epochs,
                    losses=losses,
                    images_per_second=rate,
                    eta_s=(self.steps - done) * self.config.batch_size / rate,
                )
            )
        return self.trained()

    def trained(self) -> Supernet:
        """The supernet that is evaluated: averaged weights where they are kept."""
        supernet: Supernet = self.supernet if self.ema is None else self.ema.module
        return supernet.eval()

    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the weights that are evaluated."""
        sha = hashlib.sha256()
        for name, tensor in sorted(self.trained().state_dict().items()):
            sha.update(name.encode())
            sha.update(tensor.detach().cpu().contiguous().numpy().data)
        return sha.hexdigest()[:12]

    def train_step(self, step: int) -> tuple[float, float, float]:
        """One optimiser step; returns the losses of the largest, the smallest and the mean random subnet."""
        seed_everything(self.seed, step)
        images, targets = self._batch(step)
        largest, *others = sandwich(
            self.supernet.space, seed=self.seed, step=step, num_random=self.config.num_random
        )
        self.supernet.train()
        self.optimizer.zero_grad(set_to_none=True)
        guidance = guidance_at(step / self.steps, self.config)
        logits = self._logits(images, largest, guidance, self.config.drop_path)
        loss = functional.cross_entropy(
            logits, targets, label_smoothing=0.0 if self.mixup else self.config.label_smoothing
        )
        _with_aids(loss, guidance).backward()  # type: ignore[no-untyped-call]
        taught = (logits.detach() / self.config.distill_temperature).softmax(dim=-1)
        losses = [loss.detach()]
        for i, architecture in enumerate(others):
            share = slice(i, None, len(others))
            guidance = guidance_at(step / self.steps, self.config)
            student = self._logits(images[share], architecture, guidance) / self.config.distill_temperature
            distilled = functional.cross_entropy(student, taught[share])
            (_with_aids(distilled, guidance) / len(others)).backward()  # type: ignore[no-untyped-call]
            losses.append(distilled.detach())
        torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), self.config.clip_grad)
        values = torch.stack(losses).tolist()
        if not all(map(math.isfinite, values)):
            raise TrainingError(
                f"step {step}: loss is not finite ({values})",
                hint=f"lower train.lr (now {self.config.lr:g}) and run the same command with a new --run",
            )
        self.scheduler.step_update(num_updates=step)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.supernet, step=step)
        random_losses = values[2:] or values[-1:]
        return values[0], values[min(1, len(values) - 1)], sum(random_losses) / len(random_losses)

    def _logits(
        self, images: Tensor, architecture: Architecture, guidance: Guidance | None, drop_path: float = 0.0
    ) -> Tensor:
        with autocast(self.device, self.precision):
            logits: Tensor = self.supernet(images, architecture, drop_path=drop_path, guidance=guidance)
        return logits.float()

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch, 1]).permutation(len(self.data.train))
        chosen = order[position * self.config.batch_size : (position + 1) * self.config.batch_size]
        images = torch.stack([self.transform(image) for image in self.data.train.images[chosen]])
        images, labels = images.to(self.device), self.data.train.labels[chosen].to(self.device)
        if self.mixup is not None and len(images) % 2 == 0:
            images, labels = self.mixup(images, labels)
        return images, labels

    # --- checkpoints -------------------------------------------------------------------------------------

    @property
    def _identity(self) -> dict[str, Any]:
        return {
            "space": self.supernet.space.digest,
            "train_split": self.data.hashes["train"],
            "seed": self.seed,
            "precision": self.precision,
            "recipe": self.config.model_dump(mode="json", exclude={"checkpoint_minutes"}),
        }

    def save(self, step: int) -> None:
        """Write a checkpoint after `step` steps."""
        tensors: dict[str, Tensor] = {f"supernet.{k}": v for k, v in self.supernet.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema.{k}": v for k, v in self.ema.module.state_dict().items()}
        state = self.optimizer.state_dict()["state"]
        for index, values in state.items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in values.items()}
        save_checkpoint(self.directory, step, tensors, self._identity)

    def resume(self) -> int | None:
        """Load the newest checkpoint; returns the steps done, None where there is no checkpoint.

        Raises:
            CheckpointError: The checkpoints are damaged or belong to another space, data or recipe.
        """
        checkpoint = load_checkpoint(self.directory, expected=self._identity)
        if checkpoint is None:
            return None
        groups: dict[str, dict[str, Tensor]] = {"supernet": {}, "ema": {}, "optimizer": {}}
        for name, tensor in checkpoint.tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = tensor
        self.supernet.load_state_dict(groups["supernet"])
        if self.ema is not None:
            self.ema.module.load_state_dict(groups["ema"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in groups["optimizer"].items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        return checkpoint.step


def _with_aids(loss: Tensor, guidance: Guidance | None) -> Tensor:
    """A loss plus what the training aids of its forward pass added."""
    return loss + sum(guidance.losses) if guidance is not None and guidance.losses else loss


def seed_everything(seed: int, step: int) -> None:
    """Seed every global generator that augmentation, Mixup and drop path draw from."""
    words = np.random.SeedSequence([seed, step]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002 - timm's Mixup draws from it
    torch.manual_seed(int(words[2]))


def _augmentation(data: ImageData, config: TrainConfig, image_size: int) -> Callable[[Tensor], Tensor]:
    """Timm's training transform for one uint8 image [3, S, S] -> normalised float32 [3, S, S]."""
    flip = config.hflip if config.hflip is not None else (0.5 if data.flip_safe else 0.0)
    scale = config.crop_scale or ((0.6, 1.0) if image_size >= LEAST_CROPPED else (1.0, 1.0))
    transform = create_transform(
        (3, image_size, image_size),
        is_training=True,
        scale=scale,
        ratio=(3 / 4, 4 / 3) if scale[0] < 1 else (1, 1),
        hflip=flip,
        color_jitter=None,
        auto_augment=config.auto_augment or None,
        interpolation="bilinear",
        mean=tuple(data.mean),
        std=tuple(data.std),
    )
    to_pil = _to_pil()
    return lambda image: transform(to_pil(image))


def _to_pil() -> Callable[[Tensor], Any]:
    from PIL import Image

    return lambda image: Image.fromarray(image.permute(1, 2, 0).numpy())
