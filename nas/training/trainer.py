"""Supernet training: the loop over steps, with checkpoints, exact resume and restarts after a divergence.

Every step is a function of (weights, recipe, seed, step): it seeds all random generators itself, so a run that was
killed and resumed reaches the same weights, bit for bit on a CPU, as one that was not.
"""

import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import Tensor

from nas.base import TrainingError
from nas.data import ImageSet
from nas.model import Instruments, Supernet, watched_networks
from nas.runs import TRAINING_LOG
from nas.settings import TrainConfig
from nas.training.augmentation import Augmentation
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.health import MAX_RESTARTS, RESTART_LR, DivergedError, TrainLog, TrainProgress, smoothed
from nas.training.operators.calibration import first_batches
from nas.training.operators.first_values import FIRST_IMAGES, fit_operators
from nas.training.operators.frozen import freeze
from nas.training.operators.static_maps import mean_maps, near, quicken, set_static_maps
from nas.training.sampling import drawn
from nas.training.schedule import Schedule, learning_rate
from nas.training.step import Step
from nas.training.trained import state_digest
from nas.training.world import World

WATCHED_IMAGES = 8  # for what the operators do: thousands of rows of their maps
LOOK_STEPS = 50  # at most, between measurements of the ends of the space where no step trains both
ALONE = World()
Start = Callable[[Supernet], None] | None
"""Gives a supernet its first weights in place; None: they are random, those of `fit_operators` fitted to them."""


class SupernetTrainer:
    """Trains a supernet on the train split, in place, by the recipe of `TrainConfig`.

    A step draws subnets (`sampling.drawn`), computes their gradients (`step.Step`) and takes one optimiser step. In a
    space of one architecture there is nothing to distil: it is trained like any network. `start` gives the supernet its
    first weights in place, where they are not random; a run that finds checkpoints in its directory goes on from these.
    The teacher makes logits of normalised images; None: the largest subnet teaches. `seed` is that of order,
    augmentation and sampled architectures.

    Where a loss or a gradient is not finite, the training goes back to its last checkpoint and on with half the
    learning rate, three times at most. Where that is depends on when the checkpoint was written: only a training that
    never diverged is the same in every repetition.

    Raises:
        TrainingError: A batch is too small for so many processes and subnets.
    """

    def __init__(
        self,
        supernet: Supernet,
        images: ImageSet,
        config: TrainConfig,
        *,
        seed: int,
        device: torch.device,
        precision: str,
        directory: Path,
        start: Start = None,
        teacher: Callable[[Tensor], Tensor] | None = None,
        world: World = ALONE,
    ) -> None:
        self.start, self.world = start, world
        self.schedule = Schedule(config, len(images))
        self.schedule.check_batch(world.size)
        self.supernet, self.images, self.config = supernet.to(device), images, config
        self.seed, self.device, self.precision, self.directory = seed, device, precision, directory
        self._look_steps = max(1, min(LOOK_STEPS, self.schedule.steps // 20))
        self.lr = learning_rate(config, supernet.space)
        if config.trainable == "head_and_norms":
            freeze(supernet)
        self.optimizer = create_optimizer_v2(
            supernet,
            opt="adamw",
            lr=self.lr,
            weight_decay=config.weight_decay,
            layer_decay=config.layer_decay if config.layer_decay < 1 else None,
            fused=True,
        )
        quicken(self.optimizer, supernet)
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer,
            sched="cosine",
            num_epochs=max(1, self.schedule.epochs),
            warmup_epochs=self.schedule.warmup_epochs,
            warmup_lr=self.lr / 100,
            min_lr=self.lr / 100,
            step_on_epochs=False,
            updates_per_epoch=self.schedule.steps_per_epoch,
        )
        self.ema = ModelEmaV3(supernet, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
        self.augment = Augmentation(
            images.info, config, supernet.space.backbone.image_size, device, stored_side=images.stored_side
        )
        weights = None
        if config.class_weights == "balanced":
            weights = torch.from_numpy(balanced_weights(images.labels, images.info.num_classes)).to(device)
        self.step = Step(
            supernet=supernet, config=config, precision=precision, world=world, teacher=teacher, class_weights=weights
        )
        self.lr_scale = 1.0
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)
        self._averaged: list[tuple[list[Tensor], list[Tensor]]] | None = None  # averages, copies, and what they are of
        self._ends: tuple[float, float] | None = None
        self._losses: tuple[float, float, float] | None = None  # smoothed, for people
        self._instruments: Instruments | None = None
        self._watched_images = torch.empty(0)

    def run(
        self, on_progress: Callable[[TrainProgress], None] = lambda _: None, *, until: int | None = None
    ) -> Supernet:
        """Train from the newest checkpoint, where there is one, to the end, and leave a checkpoint there.

        Returns the supernet with averaged weights, in evaluation mode. `on_progress` is called after each step; after
        `until` steps it stops, as if killed; a supernet whose static maps are not set then is returned with such maps.

        Raises:
            TrainingError: The loss is not finite, even with a lower learning rate.
            CheckpointError: The checkpoints are damaged or belong to another space, data or recipe.
        """
        step, end = self.begin(), self.schedule.steps if until is None else until
        log = TrainLog(self.directory / TRAINING_LOG, self.schedule.steps)
        started = saved = time.monotonic()
        warning = ""
        trained = 0
        while step < end:
            try:
                losses = self._losses = smoothed(self._losses, self.train_step(step))
            except DivergedError as error:
                step, warning = self._restart(error)
                continue
            step, trained, now = step + 1, trained + 1, time.monotonic()
            rate = trained * self.config.batch_size / max(now - started, 1e-9)
            looks = self.world.rank == 0 and log.diagnoses(step)
            progress = TrainProgress(
                step=step,
                steps=self.schedule.steps,
                epoch=step / self.schedule.steps_per_epoch,
                epochs=self.schedule.epochs,
                losses=losses,
                # Of many layers the power that scales the first may be 0, of the last it is 1.
                lr=max(g["lr"] / scale for g in self.optimizer.param_groups if (scale := g.get("lr_scale", 1.0))),
                images_per_second=rate,
                eta_s=(self.schedule.steps - step) * self.config.batch_size / rate,
                warning=warning,
                diagnostics=self.diagnose() if looks else {},
            )
            warning = ""
            log.add(progress)
            if step == end or now - saved > 60 * self.config.checkpoint_minutes:
                if self.world.rank == 0:
                    log.write()  # first: rows that are ahead of the checkpoint are replaced, missing ones are not
                self.save(step)
                saved = now
            on_progress(progress)
        found = self.trained()
        if end < self.schedule.steps and end <= (self.schedule.static_step or 0):
            weights = found.state_dict()
            found = Supernet(found.space).to(self.device).eval()
            found.load_state_dict(weights)
            self._set_static_maps(found)
        return found

    def begin(self) -> int:
        """Load the newest checkpoint as `resume` does, or write the first weights as one; returns the steps done."""
        done = self.resume()
        if done is None:
            if self.start is not None:
                self.start(self.supernet)
            else:
                fit_operators(self.supernet, first_batches(self.images, self.device, FIRST_IMAGES), gains=False)
            if self.ema is not None:
                self._averaged = None
                self.ema.module.load_state_dict(self.supernet.state_dict())
            self.save(0)
        return done or 0

    def _restart(self, error: DivergedError) -> tuple[int, str]:
        """Go back to the last checkpoint with a lower learning rate; returns its step, and what to tell people."""
        lowered = self.lr_scale * RESTART_LR
        if lowered < RESTART_LR**MAX_RESTARTS:
            raise TrainingError(
                f"{error}, and lowering the learning rate {MAX_RESTARTS} times did not help",
                hint=f"lower train.lr (now {self.lr:g}) and run the same command with a new --run",
            ) from error
        step = self.resume()
        assert step is not None, "a training begins with a checkpoint"
        self.lr_scale = lowered
        self.world.add_up([torch.zeros(1, device=self.device)])  # all have read it before it is replaced
        self.save(step)
        return step, (
            f"{error}; back to step {step} with {lowered:g} of train.lr, "
            f"{round(math.log(lowered, RESTART_LR))} of at most {MAX_RESTARTS} times"
        )

    def trained(self) -> Supernet:
        """The supernet that is evaluated: averaged weights where they are kept."""
        supernet: Supernet = self.supernet if self.ema is None else self.ema.module
        return supernet.eval()

    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the weights that are evaluated."""
        return state_digest(self.trained().state_dict())

    def diagnose(self) -> dict[str, float]:
        """How the operators of the supernet that is evaluated do, by the names of `nas.arch.DIAGNOSTICS`."""
        if self._instruments is None:
            supernet = self.supernet if self.ema is None else self.ema.module
            numbers = np.linspace(0, len(self.images) - 1, WATCHED_IMAGES).astype(np.int64)
            self._instruments = Instruments(supernet, watched_networks(supernet.space))
            self._watched_images = self.images.normalized(numbers)
        return self._instruments.read(self._watched_images)

    def train_step(self, step: int) -> tuple[float, float, float]:
        """One optimiser step. Returns cross-entropies with the labels, nats: largest, smallest, mean of random subnets.

        Where there is none, it is of the nearest of these. With `single_path` the first two are measured before every
        50th step, or more often in a short training, and stay until then.

        Raises:
            DivergedError: A loss or the gradient is not finite; the weights are as before.
        """
        if step == self.schedule.static_step:
            self._set_static_maps(self.supernet, *([] if self.ema is None else [self.ema.module]))
        seed_everything(self.seed, step)
        images, targets = self._batch(step)
        progress = step / self.schedule.steps
        architectures = drawn(self.supernet.space, self.config, seed=self.seed, step=step, progress=progress)
        if self.config.rule == "single_path" and (self._ends is None or step % self._look_steps == 0):
            self._look_at_ends(images, targets, progress)
        losses = self.step.run(images, targets, architectures, progress)
        norm = float(torch.nn.utils.clip_grad_norm_(self.step.weights, self.config.clip_grad))
        if not all(map(math.isfinite, [*losses, norm])):
            raise DivergedError(step, losses)
        self.scheduler.step_update(num_updates=step)
        for group in self.optimizer.param_groups:
            group["lr"] *= self.lr_scale
        self.optimizer.step()
        self._average(step)
        if self.config.rule == "single_path":
            mean = sum(losses) / len(losses)
            return (*(self._ends or (mean, mean)), mean)
        random = losses[2:] or losses[-1:]
        return losses[0], losses[min(1, len(losses) - 1)], sum(random) / len(random)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """What `ModelEmaV3.update` does, without looking for all tensors of both supernets in every step."""
        if self.ema is None:
            return
        if self._averaged is None:
            pairs = [*zip(self.ema.module.state_dict().values(), self.supernet.state_dict().values(), strict=True)]
            kinds = ([pair for pair in pairs if pair[0].is_floating_point() is real] for real in (True, False))
            self._averaged = [([one for one, _ in kind], [other for _, other in kind]) for kind in kinds]
        averages, counts = self._averaged  # a model of timm's with BatchNorm counts batches
        torch._foreach_lerp_(*averages, weight=1 - self.ema.get_decay(step))
        for copied, value in zip(*counts, strict=True):
            copied.copy_(value)

    def _set_static_maps(self, *supernets: Supernet) -> None:
        """Set static maps by the mean of the dynamic maps that layers have used so far, those of the first supernet."""
        backbone = supernets[0].space.backbone
        means = {i: near(mean, backbone) for i, mean in mean_maps(supernets[0], self.images, self.world).items()}
        for supernet in supernets:
            set_static_maps(dict(supernet.named_parameters()), means, backbone)

    def _look_at_ends(self, images: Tensor, targets: Tensor, progress: float) -> None:
        """Measure the largest and the smallest subnet before a step; nothing in a space of one architecture."""
        largest, smallest = self.supernet.space.largest(), self.supernet.space.smallest()
        if largest != smallest:
            first, second = self.step.measure(images, targets, (largest, smallest), progress)
            self._ends = first, second

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(step, self.schedule.steps_per_epoch)
        if epoch != self._epoch:
            order = np.random.default_rng([self.seed, epoch, 1]).permutation(len(self.images))
            self._epoch, self._order = epoch, order
        chosen = self._order[position * self.config.batch_size : (position + 1) * self.config.batch_size]
        return self.augment(torch.from_numpy(self.images.uncut(chosen)), torch.from_numpy(self.images.labels[chosen]))

    # --- checkpoints -------------------------------------------------------------------------------------

    @property
    def _optimized(self) -> list[str]:
        """Names of the parameters, in the order in which the optimiser numbers them."""
        names = {parameter: name for name, parameter in self.supernet.named_parameters()}
        return [names[parameter] for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def _identity(self) -> dict[str, Any]:
        return {
            "space": self.supernet.space.digest,
            "train_split": self.images.info.hashes["train"],
            "seed": self.seed,
            "precision": self.precision,
            "recipe": _recipe(self.config),
        }

    def save(self, step: int) -> None:
        """Write a checkpoint after `step` steps; only the first process does."""
        if self.world.rank:
            return
        tensors: dict[str, Tensor] = {f"supernet.{k}": v for k, v in self.supernet.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema.{k}": v for k, v in self.ema.module.state_dict().items()}
        state = self.optimizer.state_dict()["state"]
        for index, name in enumerate(self._optimized):
            tensors |= {f"optimizer.{name}.{k}": v for k, v in state.get(index, {}).items()}
        shown = {"losses": self._losses, "ends": self._ends}  # or the log of a run that was killed would differ
        save_checkpoint(self.directory, step, tensors, {**self._identity, "lr_scale": self.lr_scale, **shown})

    def resume(self) -> int | None:
        """Load the newest checkpoint as `load_checkpoint` does; returns the steps done, None where there is none."""
        checkpoint = load_checkpoint(
            self.directory, expected=self._identity, defaults={"recipe": _recipe(TrainConfig())}
        )
        if checkpoint is None:
            return None
        self._averaged = None  # loading may bring factors along
        self.supernet.load_state_dict(checkpoint.group("supernet"))
        if self.ema is not None:
            self.ema.module.load_state_dict(checkpoint.group("ema"))
        state: dict[int, dict[str, Tensor]] = {}
        indices = {name: index for index, name in enumerate(self._optimized)}
        for full_name, tensor in checkpoint.group("optimizer").items():
            name, _, key = full_name.rpartition(".")
            if name in indices:  # earlier versions numbered them by an order of their own: averages start anew
                state.setdefault(indices[name], {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.lr_scale = checkpoint.metadata.get("lr_scale", 1.0)
        if losses := checkpoint.metadata.get("losses"):
            self._losses = losses[0], losses[1], losses[2]
        if ends := checkpoint.metadata.get("ends"):
            self._ends = ends[0], ends[1]
        return checkpoint.step


def balanced_weights(labels: NDArray[np.integer[Any]], num_classes: int) -> NDArray[np.float32]:
    """What an image of each class counts, [K]: all classes the same in all, 1 on average over the images."""
    images = np.bincount(labels, minlength=num_classes)
    present = images > 0
    weights = np.zeros(num_classes)
    weights[present] = len(labels) / (present.sum() * images[present])
    return weights.astype(np.float32)


def _recipe(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide the weights; removed ones too, as the checkpoints of earlier versions have them."""
    return {**TrainConfig.removed, **config.model_dump(mode="json", exclude={"checkpoint_minutes"})}


def seed_everything(seed: int, step: int) -> None:
    """Seed every global generator that augmentation, Mixup and drop path draw from."""
    words = np.random.SeedSequence([seed, step]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002 - timm's Mixup draws from it
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(int(words[2]))
    # `torch.manual_seed` also prepares seeds for devices that are not there, each time with a stack trace.
    torch.default_generator.manual_seed(int(words[2]))
