"""Which architectures a training step trains: a function of space, seed and step alone."""

import numpy as np

from nas.architecture import Architecture
from nas.space import SearchSpace


def sandwich(space: SearchSpace, *, seed: int, step: int, num_random: int) -> tuple[Architecture, ...]:
    """The largest, the smallest and `num_random` MACs-stratified random architectures, each only once.

    Source: sandwich rule, universally slimmable networks (arXiv 1903.05134). Differs: the random ones are
    spread evenly over the MACs range instead of uniformly over the space, where nearly all lie in the middle.
    """
    rng = np.random.default_rng([seed, step])
    drawn = tuple(space.sample_stratified(rng) for _ in range(num_random))
    return tuple(dict.fromkeys((space.largest(), space.smallest(), *drawn)))
