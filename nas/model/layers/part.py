"""What the supernet asks of the parts of a block, whatever they compute."""

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, fx, nn

Stored = Mapping[str, Tensor]
"""Weights of one part at maximal size, by the name within the part that the store has for them."""

Sides = tuple[int, int]
"""Rows and columns of patch tokens; so many rows and one column where they lie on no grid."""

FirstValue = Callable[[Tensor], Tensor]
"""Fills a tensor of any size with what a weight starts from, and returns it."""


def is_recorded(x: Tensor) -> bool:
    """Whether a graph for other images is made of what is computed: by `torch.compile`, `torch.jit` or `torch.fx`."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or is_symbolic(x)  # type: ignore[attr-defined, no-untyped-call]


def is_symbolic(x: object) -> bool:
    """Whether it stands for a tensor of which nothing is known while `torch.fx` makes a graph."""
    return isinstance(x, fx.Proxy)


class OwnWeight(NamedTuple):
    """A weight that a plain ViT does not have."""

    name: str  # within the part, as the store has it
    shape: tuple[int, ...]  # as this part needs it; the store has the greatest of all
    first_value: FirstValue  # what it starts from
    decays: bool  # whether the optimiser decays it


class Frame(NamedTuple):
    """How a pass through a layer differs from that of the search: images of another size, or a mask."""

    before: Sides  # patch tokens that arrive
    after: Sides  # patch tokens of the layer
    held: Sides  # patch tokens that the layer's weights are for
    searched: Sides  # patch tokens of the layer at the image size of the search
    mask: Tensor | None = None  # added to the logits of attention, [..., T, T]; -inf leaves a key out

    @property
    def num_tokens(self) -> int:
        """Patch tokens of the layer."""
        return self.after[0] * self.after[1]


class Part(nn.Module):
    """A reducer, an attention or a feed-forward: a module that knows which slices of the store its weights are.

    Its weights are the first entries, in every dimension, of the stored ones, unless it says otherwise. `INITIAL` are
    the first values of those that a plain ViT does not have, by name; `NO_DECAY` those of them that the optimiser does
    not decay. Names must be new among the operators of a gene: equal ones share their weights.
    """

    INITIAL: ClassVar[Mapping[str, FirstValue]] = {}
    NO_DECAY: ClassVar[frozenset[str]] = frozenset()

    def stored_name(self, name: str) -> str:
        """The name of a weight in the store; another one where a weight fits one token count alone, for instance."""
        return name

    def slice_from(self, stored: Stored) -> dict[str, Tensor]:
        """The weights of this part as slices of the stored ones, by name."""
        return self.prefixes(stored)

    def prefixes(self, stored: Stored, but: str | tuple[()] = ()) -> dict[str, Tensor]:
        """First entries of the stored weights, for all whose names do not begin with `but`."""
        own = [(name, p.shape) for name, p in self.named_parameters() if not name.startswith(but)]
        return {name: stored[self.stored_name(name)][tuple(map(slice, shape))] for name, shape in own}

    def own_weights(self) -> Iterator[OwnWeight]:
        """What a plain ViT does not have of its weights."""
        for name, parameter in self.named_parameters():
            if name in self.INITIAL:
                shape, decays = tuple(parameter.shape), name not in self.NO_DECAY
                yield OwnWeight(self.stored_name(name), shape, self.INITIAL[name], decays)
