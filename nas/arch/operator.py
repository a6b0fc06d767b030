"""What an operator is where no torch is needed: a value of a gene, how it looks, what it costs, where it may stand.

Each method has a file in `nas/arch/operators`, which says all of this about it.

Letters: B images, D channels, d channels per head, H heads, R real heads, E = H - R derived heads, N patch tokens,
T = N + prefix tokens, K keys.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from nas.arch.backbone import Backbone

Operations = tuple[tuple[str, int, int], ...]
"""(operation, MACs per image, parameters), in order of execution."""

Stage = tuple[str, int]
"""(operation, most values alive beside the layer's input and what it is provided with)."""

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Rules between layers that a space may set; the others follow from what the operators are."""

    max_shared: int = 2  # most shared layers in a row behind one provider (C4)
    max_reductions: int = 3  # most layers that reduce their tokens (C12)
    # Whether layers may be static once tokens were reduced by pooling (C7). Behind `glad` none is.
    static_after_reduction: bool = False


class Look(NamedTuple):
    """How a kind of layer is drawn: a name, a glyph, and a colour of Okabe and Ito's, told apart by all eyes."""

    name: str
    glyph: str
    colour: Colour


@dataclass(frozen=True, slots=True, kw_only=True)
class Hallucination:
    """How derived heads make their logits (`nas.arch.operators.hallucination`)."""

    name: str  # the value of the gene
    words: str  # what it is
    rank: int  # its place from cheap to dear
    mixes: bool = False  # whether the real heads' logits are mixed, so that they are written to memory
    convolves: bool = False  # whether a parent's logits are convolved too


class Sizes(NamedTuple):
    """A layer in numbers, as the operators count with them; the letters are those of this module."""

    D: int
    d: int
    H: int
    R: int
    E: int
    N: int
    T: int
    K: int  # keys: as many as T, or fewer where they are reduced
    stride: int  # side of the square of tokens that becomes a key; 1: all are keys
    before: int  # patch tokens that arrive, before the reducer
    width: int  # channels of the layer; where a reducer counts, D are those that arrive
    on_grid: bool  # whether the layer's patch tokens lie on their square grid
    exports_maps: bool  # whether a later layer takes this one's maps
    exports_logits: bool  # whether a later layer derives maps from the logits of this one's real heads
    variant: Hallucination | None  # how heads are derived, where any are

    @property
    def exports(self) -> bool:
        """Whether a later layer shares this one's attention."""
        return self.exports_maps or self.exports_logits


class Place(NamedTuple):
    """A layer where it stands, as far as the rules of attention go."""

    tokens: int  # its patch tokens
    heads: int  # its heads
    derived: int  # how many of them are derived
    arriving: int  # patch tokens that arrive
    on_grid: bool  # whether its patch tokens lie on their square grid
    shared_heads: int  # heads of the maps that it could share; 0: none
    shared_derived: int  # how many of these are derived
    shares_left: int  # layers that may still share these maps
    # Rules and backbone of the search space. None: only the rules that no network can break hold.
    space: tuple[Rules, Backbone] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionKind:
    """Where a layer's attention maps come from: a value of the gene `attention`."""

    name: str  # the value
    words: str  # what it is
    order: int  # its place in messages, legends and the surrogate's features
    rank: int  # its place from cheap to dear, by which draws are spread over the range of MACs
    looks: tuple[Look, ...]  # how it is drawn, and how where heads are derived, if that differs
    rule: str = ""  # the rules of METHODS that forbid it in places
    own_maps: bool = True  # whether it attends by the tokens that it is given; the last layer should (C13)
    provides: bool = False  # whether later layers may share its maps
    shares: bool = False  # whether it takes the maps of the nearest earlier layer that is not shared
    derives: bool = False  # whether heads may be derived; where it shares, as many as its provider derives, or none
    cost: Callable[[Sizes], Operations]  # its operations, without norms
    memory: Callable[[Sizes, int], Iterator[Stage]]  # stages for so many images (B), between the norms
    # The rule that it breaks in a place, in words; empty: none. None: it may stand anywhere.
    broken: Callable[[Place], str] | None = None
    # How much there is of what takes time and is no MAC, for latency profiles.
    features: Callable[[Sizes], Mapping[str, int]] = lambda _: {}

    def derived(self, wanted: int, provided: int) -> int:
        """Derived heads where so many are wanted, behind a provider that derives so many (C6)."""
        return wanted if self.derives and (not self.shares or wanted == provided) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reducer:
    """How patch tokens become fewer before a layer: a value of the gene `reducer`."""

    name: str  # the value
    words: str  # what it is
    rank: int  # its place from cheap to dear, by which draws are spread over the range of MACs
    colour: Colour  # in the report
    keeps_grid: bool = True  # whether it needs a square grid of tokens, and leaves one (C10)
    halves: bool = (
        False  # whether it halves the grid's sides, rounded up, and nothing else, and takes patch tokens alone
    )
    widens: bool = False  # whether it makes the new channels of a layer that has more than arrive
    cost: Callable[[Sizes], Operations] = lambda _: ()  # its operations
    memory: Callable[[Sizes, int], int]  # most values alive at once for so many images (B), beside the layer's input

    def broken(self, tokens: int, on_grid: bool, arriving: int = 0) -> str:
        """The rule by which tokens, which lie on a grid or do not, cannot become so many; empty: they can.

        `arriving` is how many there were; 0: not known.
        """
        if self.keeps_grid and not is_square(tokens):
            return f"{self.name} leaves a square number of tokens, got {tokens} (C10)"
        if self.keeps_grid and not on_grid:
            return f"{self.name} needs the grid that an earlier glad dissolved (C10)"
        halved = (math.isqrt(arriving) + 1) // 2
        if self.halves and arriving and tokens != halved**2:
            return f"{self.name} halves the sides of the grid: {arriving} tokens become {halved**2}, not {tokens} (C18)"
        return ""

    def refused(self, backbone: Backbone) -> str:
        """Why no network over a backbone can have it; empty: some can."""
        if self.halves and backbone.num_prefix_tokens:
            return f"{self.name} needs class_token false and no reg_tokens: it embeds a grid (C18)"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stem:
    """How an image becomes patch tokens: a value of the gene `stem`, one for the whole network."""

    name: str  # the value
    words: str  # what it is
    rank: int  # its place from cheap to dear, by which draws are spread over the range of MACs
    cost: Callable[[int, Backbone], Operations]  # its operations for D channels
    memory: Callable[[int, Backbone, int], int]  # most values alive at once for D and so many images (B), beside these
    # Why it cannot cut images into such patches; empty: it can.
    broken: Callable[[Backbone], str] = lambda _: ""


def is_square(num_tokens: int) -> bool:
    """Whether so many tokens can lie on a square grid."""
    return math.isqrt(num_tokens) ** 2 == num_tokens
