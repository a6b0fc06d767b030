"""AutoFormer's evolution (arXiv 2107.00651, its `evolution.py`): the baseline of the field.

Its scheme, with its rates: half of a generation mutates one of the parents, half crosses two of them gene by gene,
what was proposed before is drawn again, and where that fails the place is filled at random. It knows one
objective; here the parents are the least dominated, and the most accurate among these.
"""

from collections.abc import Collection, Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

from nas.arch import Architecture
from nas.space import SearchSpace

PARENT_SHARE = 0.2  # of the population: its 10 of 50
GENE_RATE = 0.2  # a layer's gene is drawn again with
SIZE_RATE = 0.4  # depth and width are drawn again with
TRIES = 50


def select(
    architectures: Sequence[Architecture], losses: NDArray[np.float64], population_size: int
) -> list[Architecture]:
    """The parents of the next generation: a fifth of it, the least dominated, the first objective deciding among these.

    `losses` [n, objectives] are all to be minimised; the first is that of top-1, if it is an objective.
    """
    order = np.lexsort((losses[:, 0], moocore.pareto_rank(losses)))
    return [architectures[i] for i in order[: max(2, round(PARENT_SHARE * population_size))]]


def child(
    space: SearchSpace,
    parents: Sequence[Architecture],
    seen: Collection[str],
    is_mutant: bool,
    rng: np.random.Generator,
) -> Architecture:
    """A new architecture from the parents; a random one where the parents have no new child."""
    choices = {name: values for name, values in space.choices().items() if len(values) > 1}
    for _ in range(TRIES if parents else 0):
        params = space.encode(parents[int(rng.integers(len(parents)))])
        if is_mutant:
            for name, values in choices.items():
                if rng.random() < (SIZE_RATE if name in ("depth", "embed_dim", "stem") else GENE_RATE):
                    params[name] = values[int(rng.integers(len(values)))]
        else:
            other = space.encode(parents[int(rng.integers(len(parents)))])
            params |= {name: other[name] for name in choices if rng.random() < 0.5}
        found = space.decode(params)
        if found.digest not in seen:
            return found
    return space.sample(rng)
