"""What measures an architecture, and what it races against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nas.arch import Architecture
from nas.runs import Conditions, Measurement


@dataclass(frozen=True, slots=True)
class FrontRunner:
    """A completed trial that may dominate what is measured now.

    Attributes:
        number: The trial's.
        costs: Values of the objectives but top-1, all to be minimised, by name.
        correct: Which images of the whole split it got right, packed by `numpy.packbits`.
    """

    number: int
    costs: Mapping[str, float]
    correct: bytes


@dataclass(frozen=True, slots=True, eq=False)
class RacePlan:
    """What a trial races over.

    Attributes:
        front_runners: Completed trials, usually the front.
        order: [N] int32; the images, those on which architectures disagree most first.
        doubt: [N] float32; how likely two architectures disagree on each, in that order.
    """

    front_runners: tuple[FrontRunner, ...]
    order: NDArray[np.int32]
    doubt: NDArray[np.float32]


class Evaluator(Protocol):
    """Measures architectures under fixed conditions; the same one has the same values, latency aside."""

    conditions: Conditions

    def evaluate(self, architecture: Architecture, plan: RacePlan | None = None, *, attempt: int = 0) -> Measurement:
        """Measure, or stop where a front runner is surely better (`Measurement.beaten_by`).

        Without a plan every image is seen. `attempt` counts earlier attempts that ran out of memory or killed their
        process; each halves the batch.

        Raises:
            EvaluationError: This candidate cannot be measured.
        """
