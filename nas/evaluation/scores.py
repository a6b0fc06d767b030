"""From right and wrong answers to a measurement."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nas.evaluation.racing import Verdict
from nas.trial import Conditions, Measurement


def top1_percent(correct: NDArray[np.bool_]) -> float:
    """Share of right answers, percent."""
    return 100.0 * float(correct.sum()) / len(correct)


def wilson_interval(correct: NDArray[np.bool_]) -> tuple[float, float]:
    """95 % interval of the accuracy that the images stand for, percent (Wilson's score, from scipy)."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    interval = binomtest(int(correct.sum()), len(correct)).proportion_ci(0.95, method="wilson")
    return 100.0 * float(interval.low), 100.0 * float(interval.high)


def measurement(
    correct: NDArray[np.bool_],
    costs: Mapping[str, float],
    conditions: Conditions,
    *,
    verdict: Verdict | None = None,
    seconds: float,
) -> Measurement:
    """A measurement from the answers to the images that were seen: all of them, unless it was beaten.

    Args:
        correct: Which images were classified right.
        costs: Other values by metric name.
        conditions: Of a measurement on all images.
        verdict: Of the race, if it was lost.
        seconds: Wall time it took.
    """
    answers = np.packbits(correct).tobytes()
    if verdict is not None:
        return Measurement(
            values=dict(costs),
            intervals={"top1": verdict.top1_interval},
            conditions=conditions.on(len(correct)),
            seconds=seconds,
            correct=answers,
            beaten_by=verdict.beaten_by,
        )
    return Measurement(
        values={"top1": top1_percent(correct), **costs},
        intervals={"top1": wilson_interval(correct)},
        conditions=conditions,
        seconds=seconds,
        correct=answers,
    )
