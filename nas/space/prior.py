"""Drawing for a training: every size, token pattern and operator has its floor, the plain ViT first of all.

Uniform draws are uniform over combinations, so they hardly ever have few layers or plain ones: a space of 10 layers
has 100,000 times as many architectures of depth 10 as of depth 8, and nearly all have every operator somewhere.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from nas.arch import Architecture
from nas.space.domain import with_feed_forward
from nas.space.genome import Genome
from nas.space.sampling import any_stem, first_within

PLAIN = 0.25
"""Share of draws whose layers are all plain; in as many again, each is with probability one half."""


def sample_by_gene(space: Genome, rng: np.random.Generator) -> Architecture:
    """Draw gene by gene, width and depth first, each uniformly among the values that can still be had.

    - Width, depth and stem: uniform.
    - Tokens: uniform over how often they are reduced, then over the layers where; each time uniform over the counts
      that are left, then the reducers, then the widths. A layer that leaves no choice has its way.
    - A layer's attention, heads, share and kind of hallucination, convolution, hidden width and rank, in this order:
      uniform.
    - In a quarter of the draws all layers are plain: no reduction, dynamic attention, real heads, feed-forwards of
      full rank without convolution; and all have the same share of the range of their heads, and of that of their
      hidden widths. In another quarter, each layer is plain with probability one half, but for its tokens and sizes.

    Under constraints as `sampling.first_within`. So no width, depth, number of reductions or
    plain ViT of a width and depth becomes rarer where the space has more combinations. Single-path methods draw so in
    spaces whose layers all have the same choices (SPOS, arXiv 1904.00420; OFA, 1908.09791); the plain ones are ours.
    """
    return first_within(space, rng, _draw)


def _draw(space: Genome, rng: np.random.Generator) -> Architecture:
    walk, layers = space.walk, []
    lot, head_share, hidden_share = rng.random(3)
    plain_share = 1.0 if lot < PLAIN else 0.5 if lot < 2 * PLAIN else 0.0
    width = _any(space.embed_dim, rng)
    state = walk.begin(width)
    depth = _any([depth for depth in space.depth if walk.count(state, depth)], rng)
    reductions = 0 if plain_share == 1 else int(rng.integers(walk.start.reductions_left + 1))
    for i in range(depth):
        tree = walk.by_gene(state, depth)
        reduces = rng.random() < reductions / (depth - i)
        lower = [tokens for tokens in tree if (tokens < state.arriving) == reduces] or list(tree)
        by_reducer = tree[_any(lower, rng)]
        reducer = _any(by_reducer, rng)
        reductions -= reducer is not None
        is_plain = plain_share == 1 or rng.random() < plain_share
        by_width = by_reducer[reducer]
        by_attention = by_width[_any(by_width, rng)] if len(by_width) > 1 else next(iter(by_width.values()))
        by_heads = by_attention[_any(by_attention, rng, "dynamic" if is_plain else None)]
        by_ratio = by_heads[_at(by_heads, head_share) if plain_share == 1 else _any(by_heads, rng)]
        by_variant = by_ratio[_any(by_ratio, rng, 0.0 if is_plain else None)]
        by_convolution = by_variant[_any(by_variant, rng)]
        convolves = next(iter(by_convolution))
        if len(by_convolution) > 1:
            convolves = _any(by_convolution, rng, False if is_plain else None)
        structure, state = by_convolution[convolves]
        pairs = walk.feed_forwards(i)
        ratios = dict.fromkeys(ratio for ratio, _ in pairs)
        ratio = _at(ratios, hidden_share) if plain_share == 1 else _any(ratios, rng)
        ranks = [rank for each, rank in pairs if each == ratio]
        layers.append(with_feed_forward(structure, ratio, max(ranks) if is_plain else _any(ranks, rng)))
    return Architecture(embed_dim=width, stem=any_stem(space, rng), layers=tuple(layers))


def _any(values: Collection[Any], rng: np.random.Generator, wanted: Any = None) -> Any:
    """Any of the values; the wanted one where it is among them."""
    if wanted is not None and wanted in values:
        return wanted
    found: Sequence[Any] = list(values)
    return found[int(rng.integers(len(found)))]


def _at(values: Collection[Any], share: float) -> Any:
    """The value at a share below 1 of the way from the lowest to the highest; each has an equal part of the way."""
    return sorted(values)[int(share * len(values))]
