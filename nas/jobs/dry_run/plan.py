"""`run --minutes M`: how many epochs, trials and finalists a whole job has. Arithmetic on what a rehearsal measured."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from nas.base import duration, plural
from nas.jobs.last_choice.candidates import epochs_within, trained_cost
from nas.jobs.last_choice.finalists import COUNT, LEAST_STEPS, step_macs
from nas.jobs.session import Budget, Session
from nas.jobs.stages import training_schedule
from nas.runs import RunPlan

SHARES: Mapping[str, float] = {"training": 0.5, "search": 0.2, "finalists": 0.3}
"""Of the time that is not fixed. Without one of them, the others have its share in their proportion."""
LEAST_TRIALS = 10
LONGER = 1.05  # than the minutes: roundings are less
MOST_TRIALS = 1000  # more find hardly anything, and proposals become slow: training and finalists have that time


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What parts of a job take, seconds.

    Attributes:
        fixed_s: Imports, images, the latency of the front, files.
        epoch_s: An epoch of the supernet, or of several that are trained one after the other.
        trial_s: From one measured architecture to the next.
        workers_s: To start and stop the workers of the search.
        finalist_s: Trainings alone that cost, in MACs, as much as an epoch of the supernet.
    """

    fixed_s: float
    epoch_s: float
    trial_s: float
    workers_s: float
    finalist_s: float


def share_out(
    minutes: float, pace: Pace, *, epochs: int | None, trials: int | None, with_finalists: bool
) -> tuple[int, int, float]:
    """Epochs, trials, and what finalists may cost, in epochs of the supernet, of a job of so many minutes.

    What is given stays as it is; the rest is shared by `SHARES`. There is at least an epoch, and `LEAST_TRIALS`.
    """
    left = 60 * minutes - pace.fixed_s - pace.workers_s
    open_parts = {"finalists"} if with_finalists else set()
    if epochs is None:
        open_parts.add("training")
    else:
        left -= epochs * pace.epoch_s
    if trials is None:
        share = SHARES["search"] / (SHARES["search"] + sum(SHARES[part] for part in open_parts))
        trials = min(MOST_TRIALS, max(LEAST_TRIALS, floor(share * left / pace.trial_s)))
    left = max(0.0, left - trials * pace.trial_s)
    total = sum(SHARES[part] for part in open_parts) or 1.0
    if epochs is None:
        epochs = max(1, floor(SHARES["training"] / total * left / pace.epoch_s))
        left = max(0.0, left - epochs * pace.epoch_s)
    return epochs, trials, left / pace.finalist_s if with_finalists else 0.0


def planned(
    session: Session, budget: Budget, minutes: float, pace: Pace, *, epochs: int | None, trials: int | None
) -> RunPlan:
    """The plan of a job of so many minutes; epochs, trials and finalists that are given stay as they are.

    Where no number of finalists is given there are `COUNT`, unless the last rung had fewer than `LEAST_STEPS` steps.
    """
    count = COUNT if budget.finalists is None else budget.finalists
    most = session.space.size()
    found = share_out(minutes, pace, epochs=epochs, trials=trials, with_finalists=count > 0)
    if count and budget.finalists is None:
        steps = finalist_epochs(session, found[2], count) * _steps_per_epoch(session)
        if steps < LEAST_STEPS:
            count = 0
            found = share_out(minutes, pace, epochs=epochs, trials=trials, with_finalists=False)
    return RunPlan(
        minutes=minutes, epochs=found[0], trials=min(found[1], most), finalists=count, finalist_epochs=found[2]
    )


def finalist_epochs(session: Session, supernet_epochs: float, count: int) -> int:
    """Epochs of the last rung of so many finalists that may cost so many epochs of the supernet, before they are known.

    They are taken to be spread evenly over the space's MACs, on a logarithmic scale, as levels are.
    """
    return epochs_within(supernet_epochs * step_macs(session.space), expected_macs(session, count))


def expected_macs(session: Session, count: int) -> list[float]:
    """MACs of so many candidates before they are known."""
    return [float(macs) for macs in np.geomspace(*session.space.macs_range(), count)]


def finalists_s(session: Session, epochs: int, count: int, finalist_s: float) -> float:
    """Seconds of all trainings of so many finalists with so many epochs in the last rung."""
    return trained_cost(epochs, expected_macs(session, count)) / step_macs(session.space) * finalist_s


def rounds_of(budget: Budget) -> int:
    """How many times after one another supernets are trained."""
    cores = len(os.sched_getaffinity(0))
    return ceil(budget.supernet_trials / max(1, min(budget.workers, cores)))


def plan_line(plan: RunPlan, pace: Pace) -> str:
    """The plan for people; it says so where even the least that can be done takes longer."""
    training_s, search_s = plan.epochs * pace.epoch_s, pace.workers_s + plan.trials * pace.trial_s
    trained_s = plan.finalist_epochs * pace.finalist_s
    last = f"{plural(plan.finalists, 'finalist')} ({duration(trained_s)})" if plan.finalists else "no finalists"
    is_longer = training_s + search_s + trained_s + pace.fixed_s > LONGER * 60 * plan.minutes
    return (
        f"{plan.minutes:g} min: {plural(plan.epochs, 'epoch')} of the supernet ({duration(training_s)}), "
        f"{plural(plan.trials, 'trial')} ({duration(search_s)}), {last}, the rest {duration(pace.fixed_s)}"
        f"{'; this is longer than asked' if is_longer else ''}"
    )


def _steps_per_epoch(session: Session) -> int:
    return training_schedule(session.config, session.data.train).steps_per_epoch
