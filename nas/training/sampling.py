"""Which architectures a training step trains: a function of space, recipe, seed and step alone."""

import numpy as np

from nas.arch import Architecture
from nas.settings import TrainConfig
from nas.space import SearchSpace

STAGES = (
    ("stem", "attention", "hallucination_ratio", "hallucination", "ffn_rank", "ffn_conv"),
    ("num_tokens", "reducer"),
    ("num_heads", "mlp_ratio", "embed_dim"),
    ("depth",),
)
"""Genes that a progressive training sets free, stage by stage, from the plain network to the whole space."""


def drawn(
    space: SearchSpace, config: TrainConfig, *, seed: int, step: int, progress: float
) -> tuple[Architecture, ...]:
    """The architectures of a step, each only once.

    - `sandwich`: the largest, the smallest and `train.num_random` random ones (universally slimmable networks,
      arXiv 1903.05134).
    - `single_path`: one random one, or `train.num_random` (SPOS, arXiv 1904.00420). Differs: now and then the first is
      the smallest or the largest (`train.ends`), which random draws hit hardly ever.

    Random ones are drawn gene by gene (`SearchSpace.sample_by_gene`); or uniformly from the space as the papers do,
    where nearly all lie in the middle of the MACs range and have every operator somewhere; or spread evenly over that
    range (`train.draw`). Some get one kind of attention throughout, as the designs of the field have and a draw hardly
    ever has (`train.same_attention`). With `train.progressive` they are held back to what is free at this progress:
    steps done / steps in all.
    """
    rng = np.random.default_rng([seed, step])
    draws = {"by_gene": space.sample_by_gene, "uniform": space.sample, "stratified": space.sample_stratified}
    draw = draws[config.draw]
    is_sandwich = config.rule == "sandwich"
    count = config.num_random if is_sandwich else max(config.num_random, 1)
    random = [draw(rng) for _ in range(count)]
    if config.same_attention:
        random = [_alike_or(one, space, rng, config.same_attention) for one in random]
    if is_sandwich:
        random = [space.largest(), space.smallest(), *random]
    else:
        random[0] = _end_or(random[0], space, rng, config.ends)
    free = free_genes(progress, config.progressive)
    return tuple(dict.fromkeys(held_back(space, architecture, free) for architecture in random))


def _end_or(other: Architecture, space: SearchSpace, rng: np.random.Generator, share: float) -> Architecture:
    """The smallest in two thirds of this share of the cases, the largest in one third, otherwise `other`."""
    lot = rng.random()
    if lot >= share:
        return other
    return space.smallest() if lot < share * 2 / 3 else space.largest()


def _alike_or(other: Architecture, space: SearchSpace, rng: np.random.Generator, share: float) -> Architecture:
    """`other`; in this share of the cases with one kind of attention, drawn from all, wherever it can be had.

    What has one kind already stays.
    """
    choices = {name: values for name, values in space.choices().items() if name.endswith(".attention")}
    kinds = list(dict.fromkeys(kind for values in choices.values() for kind in values))
    if len(kinds) < 2 or rng.random() >= share or len({layer.attention for layer in other.layers}) == 1:
        return other
    kind = kinds[int(rng.integers(len(kinds)))]
    return space.decode(space.encode(other) | {name: kind for name, values in choices.items() if kind in values})


def free_genes(progress: float, share: float) -> frozenset[str]:
    """Genes that are free after this share of the training: stage by stage, all once `share` of it is over.

    Source: progressive shrinking, OFA (arXiv 1908.09791). Differs: operators come first, since a pretrained start
    changes least by them, and sizes last.
    """
    reached = len(STAGES) if progress >= share else int(progress / share * len(STAGES)) + 1
    return frozenset(gene for stage in STAGES[:reached] for gene in stage)


def held_back(space: SearchSpace, architecture: Architecture, free: frozenset[str]) -> Architecture:
    """The architecture with every gene that is not free as in the largest one."""
    locked = {gene for stage in STAGES for gene in stage} - free
    if not locked:
        return architecture
    largest = space.encode(space.largest())
    params = space.encode(architecture)
    return space.decode(params | {name: largest[name] for name in params if name.rpartition(".")[2] in locked})
