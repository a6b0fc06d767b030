"""Dominance and hypervolume."""

import math
from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.base import ConfigError, Direction, Objective


def non_dominated(values: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.bool_]:
    """Which rows no other row dominates: no worse in every column and better in one. Ties all stay.

    A row with a value that is not finite is never on a front and never keeps another row off it.

    Shapes: values [n, m], m = len(directions) -> mask [n].

    >>> non_dominated([[90, 5], [90, 5], [80, 9], [float("nan"), 1]], ["maximize", "minimize"]).tolist()
    [True, True, False, False]
    """
    rows = np.asarray(values, dtype=float).reshape(-1, len(directions))
    mask: NDArray[np.bool_] = np.isfinite(rows).all(axis=1)
    maximise = [direction == "maximize" for direction in directions]
    mask[mask] = moocore.is_nondominated(rows[mask], maximise=maximise, keep_weakly=True)
    return mask


def hypervolume(values: ArrayLike, objectives: Sequence[Objective]) -> float:
    """Share in [0, 1] of the box from every objective's `ideal` to its `reference` that the rows dominate.

    A row beyond the reference in any objective, or with a value that is not finite, contributes nothing.

    Shapes: values [n, m], m = len(objectives), in the metrics' units.

    Raises:
        ConfigError: A reference is not worse than the ideal.

    >>> hypervolume([[75.0, 2.0]], [Objective(TOP1, 50.0), Objective(LATENCY, 8.0)])
    0.375
    """
    ideal = np.array([objective.ideal for objective in objectives])
    reference = np.array([objective.reference for objective in objectives], dtype=float)
    for o in objectives:
        if not (math.isfinite(o.reference) and o.metric.is_better(o.ideal, o.reference)):
            rule = f"the reference must be worse than {o.ideal:g} and finite"
            raise ConfigError(f"{o.metric.name}: {rule}, got {o.reference:g}")
    rows = np.asarray(values, dtype=float).reshape(-1, len(objectives))
    rows = rows[np.isfinite(rows).all(axis=1)]
    losses = np.maximum((ideal - rows) / (ideal - reference), 0.0)  # 0 is ideal, 1 the reference
    losses = losses[(losses < 1.0).all(axis=1)]
    if not len(losses):
        return 0.0
    return float(moocore.hypervolume(losses, ref=np.ones(len(objectives))))
