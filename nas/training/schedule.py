"""When a training does what: its steps, and the aids that come and go with them."""

import math
from dataclasses import dataclass

from nas.base import TrainingError
from nas.model import Guidance
from nas.settings import TrainConfig
from nas.space import SearchSpace

LEAST_EPOCHS = 60
WARMUP_SHARE = 0.2
LEAST_STEPS = 2000  # what the digits space needs (results/LOG.md)
PAYING_STEPS = 400  # from a trained ViT; 100 lose from 200 images on (results/LOG.md)
LEARNING_RATE = 2e-3
FULL_RATE_WIDTH, FULL_RATE_WIDTH_OF_SUPERNETS = 48, 96


def learning_rate(config: TrainConfig, space: SearchSpace) -> float:
    """Peak learning rate of a training: what the recipe says, else by the greatest width and by how many networks.

    With Adam, the rate at which hidden layers learn best falls as 1 / width (muP, arXiv 2203.03466). Differs: one rate
    for all weights, and none above that of width 48, where more helps no longer. A supernet of widths 72 and 96, whose
    steps train another network each, learns as well at twice the rate (results/reference/alone_recipes.csv, LOG.md).
    """
    full = FULL_RATE_WIDTH if space.size() == 1 else FULL_RATE_WIDTH_OF_SUPERNETS
    return config.lr or LEARNING_RATE * min(1.0, full / max(space.widths))


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long a training by a recipe is, on so many images."""

    config: TrainConfig  # the recipe
    num_images: int  # of the train split

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the images; one where there are fewer images than a batch has."""
        return max(self.num_images // self.config.batch_size, 1)

    @property
    def epochs(self) -> int:
        """Passes over the images: what the recipe says, or enough of them for `LEAST_STEPS` steps."""
        enough = max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / self.steps_per_epoch))
        return enough if self.config.epochs is None else self.config.epochs

    @property
    def steps(self) -> int:
        """Steps of the optimiser, in all."""
        return self.epochs * self.steps_per_epoch

    @property
    def paying_epochs(self) -> int | None:
        """Epochs from which on a training of a trained ViT pays, where this is a shorter one; else None."""
        return math.ceil(PAYING_STEPS / self.steps_per_epoch) if 0 < self.steps < PAYING_STEPS else None

    @property
    def warmup_epochs(self) -> float:
        """Epochs in which the learning rate rises: what the recipe says, but no more than a fifth of all.

        A training of 2 epochs with a warm-up of 2 would end at its highest rate.
        """
        return min(self.config.warmup_epochs, WARMUP_SHARE * self.epochs)

    @property
    def static_step(self) -> int | None:
        """The step before which static maps are set to mean dynamic ones: the last that has no part of them."""
        share = self.config.static_guidance
        return int(STATIC_HOLDS * share * self.steps) if share else None

    def check_batch(self, processes: int = 1) -> None:
        """Require that a batch can be shared out among processes and subnets of a step; else a TrainingError."""
        least = processes * (self.config.num_random + 1)
        if min(self.config.batch_size, self.num_images) < least:
            raise TrainingError(
                f"train.batch_size {self.config.batch_size}: {processes} process{'es' if processes > 1 else ''} "
                f"and the subnets of a step share it out among them and need at least {least} images",
                hint="raise train.batch_size, or use fewer workers",
            )


STATIC_HOLDS = 0.5  # share of `train.static_guidance`


def guidance_at(progress: float, config: TrainConfig) -> Guidance | None:
    """The aids of a forward pass at a progress (steps done / steps in all), or None once they have ended.

    Over the first half of `train.static_guidance` of the steps static layers (DGSSA, arXiv 2310.07664, METHODS 2.2) are
    the dynamic attention that they replace. Then their maps are set by the mean of its maps (`Schedule.static_step`);
    over the second half they apply a mixture of the two, whose dynamic share falls linearly to nothing.
    """
    if not config.static_guidance:
        return None
    share = min(1.0, max(0.0, (1 - progress / config.static_guidance) / (1 - STATIC_HOLDS)))
    return Guidance(static=share) if share else None
