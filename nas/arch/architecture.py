"""The genotype: what is chosen for every layer, as a value. And `Backbone`, the part that is fixed."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, takewhile
from typing import Any

from nas.arch.backbone import Backbone
from nas.arch.operator import AttentionKind, Place, Sizes
from nas.arch.operators import ATTENTION, HALLUCINATION, REDUCERS, STEMS
from nas.arch.operators.hallucination import hallucinated_heads
from nas.arch.parts.low_rank import stored_rank
from nas.base import ArchitectureError, parse_json

WRITTEN_BY = "such JSON is written by Architecture.to_json"
LEFT_OUT = {
    "reducer": None, "ffn_rank": 1.0, "hallucination_ratio": 0.0, "hallucination": None, "embed_dim": 0,
    "ffn_conv": False,
}  # fmt: skip
WRITTEN = ("num_tokens", "attention", "num_heads", "mlp_ratio", *LEFT_OUT)
"""Genes in the order of files; those of `LEFT_OUT` only where they have other values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChoice:
    """What is chosen for one layer. Canonical: a field that cannot change the network is at its default."""

    num_tokens: int  # patch tokens in this layer; class token not counted. Pooling leaves a square number, `glad` any
    reducer: str | None = None  # present exactly where `num_tokens` is lower than in the layer before
    embed_dim: int = 0  # channels of every token from here on, where they become more; 0: as many as arrive
    attention: str = "dynamic"  # source of the attention maps, by its name in `nas.arch.operators` as all operators
    # Hallucinated heads / all heads. Rounded down to whole heads on construction (METHODS C6), so 0.5 with 3 heads is
    # stored as 1/3 and two spellings of one network are equal. A shared layer with one derives its maps anew from its
    # provider's real heads (METHODS 5.3), so it has its provider's ratio; with 0 it takes the maps as they are.
    hallucination_ratio: float = 0.0
    hallucination: str | None = None  # present exactly where `hallucination_ratio` > 0
    num_heads: int  # heads, each `Backbone.head_dim` wide. A shared layer has its provider's
    # Rank of the factorised hidden-to-output matrix / `embed_dim`; 1: not factorised. A rank that saves nothing,
    # `mlp_ratio` / (`mlp_ratio` + 1) or more, is stored as 1 (C14).
    ffn_rank: float = 1.0
    ffn_conv: bool = False  # a depth-wise 3x3 convolution over the grid of patches before the activation, as PVT v2's
    mlp_ratio: float  # hidden width of the feed-forward / `embed_dim`

    def __post_init__(self) -> None:
        store = object.__setattr__
        try:
            store(self, "num_tokens", int(self.num_tokens))
            store(self, "num_heads", int(self.num_heads))
            store(self, "embed_dim", int(self.embed_dim))
            store(self, "mlp_ratio", float(self.mlp_ratio))
            store(self, "ffn_rank", float(self.ffn_rank))
            store(self, "ffn_conv", _truth(self.ffn_conv, "ffn_conv"))
            store(self, "attention", _name_in(ATTENTION, self.attention, "AttentionKind"))
            if self.reducer is not None:
                store(self, "reducer", _name_in(REDUCERS, self.reducer, "Reducer"))
            if self.hallucination is not None:
                store(self, "hallucination", _name_in(HALLUCINATION, self.hallucination, "Hallucination"))
            ratio = float(self.hallucination_ratio)
        except (OverflowError, TypeError, ValueError) as error:
            raise ArchitectureError(f"layer choice: {error}") from error
        problems = []
        if self.num_tokens < 1:
            problems.append(f"num_tokens must be at least 1, got {self.num_tokens}")
        elif self.reducer and (broken := REDUCERS[self.reducer].broken(self.num_tokens, on_grid=True)):
            problems.append(broken)
        if self.embed_dim < 0 or (self.embed_dim and self.reducer is None):
            problems.append(f"embed_dim grows only where tokens are reduced, got {self.embed_dim} (C16)")
        if self.num_heads < 1:
            problems.append(f"num_heads must be at least 1, got {self.num_heads}")
        if not 0 < self.mlp_ratio < math.inf:
            problems.append(f"mlp_ratio must be positive and finite, got {self.mlp_ratio}")
        if not 0 <= ratio < 1:
            problems.append(f"hallucination_ratio must be in [0, 1), got {ratio}")
        if not 0 < self.ffn_rank <= 1:
            problems.append(f"ffn_rank must be above 0 and at most 1, got {self.ffn_rank}")
        if ratio > 0 and not self.kind.derives:
            needed = " or ".join(kind.name for kind in ATTENTION.values() if kind.derives)
            problems.append(f"hallucination_ratio {ratio} needs {needed} attention, got {self.attention} (C6)")
        if problems:
            raise ArchitectureError("layer choice: " + "; ".join(problems))
        hallucinated = hallucinated_heads(self.num_heads, ratio)
        store(self, "hallucination_ratio", hallucinated / self.num_heads)
        store(self, "hallucination", (self.hallucination or "copy") if hallucinated else None)
        store(self, "ffn_rank", stored_rank(self.mlp_ratio, self.ffn_rank))

    @property
    def kind(self) -> AttentionKind:
        """The attention that is chosen."""
        return ATTENTION[self.attention]

    @property
    def keeps_grid(self) -> bool:
        """Whether tokens on a grid are on one behind this layer."""
        return self.reducer is None or REDUCERS[self.reducer].keeps_grid

    @property
    def widens(self) -> bool:
        """Whether a matrix of its own makes new channels, and not the reducer."""
        return self.embed_dim > 0 and self.reducer is not None and not REDUCERS[self.reducer].widens

    @property
    def num_hallucinated(self) -> int:
        """Heads whose maps are derived."""
        return hallucinated_heads(self.num_heads, self.hallucination_ratio)

    @property
    def num_real(self) -> int:
        """Heads with queries and keys of their own."""
        return self.num_heads - self.num_hallucinated


def _truth(value: object, what: str) -> bool:
    """A value of a file that is true or false."""
    if not isinstance(value, bool):
        raise TypeError(f"{what} must be true or false, got {value!r}")
    return value


def _name_in(table: Mapping[str, Any], name: object, what: str) -> str:
    """The name of an operator, as the table has it."""
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"{name!r} is not a valid {what}")
    return str(table[name].name)


OFF_GRID = "ffn_conv needs the grid that an earlier glad dissolved (C19)"


def token_problems(arriving: int, num_tokens: int, reducer: str | None) -> Iterator[str]:
    """Why a layer cannot have so many patch tokens, with or without a reducer, where so many arrive."""
    if num_tokens > arriving:
        yield f"num_tokens grows from {arriving} to {num_tokens} (C11)"
    if (reducer is not None) != (num_tokens < arriving):
        yield "a reducer is present exactly where num_tokens falls"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerContext:
    """What a layer's network and cost depend on beside its own choice."""

    tokens_before: int  # patch tokens that arrive, before the reducer
    width_before: int = 0  # channels that arrive, where the layer has more; 0: as many as it has
    on_grid: bool = True  # whether the layer's patch tokens lie on their square grid: no `glad` up to this layer
    exports_maps: bool = False  # whether a later layer takes this one's maps, so that they are materialised
    exports_logits: bool = False  # whether a later layer derives maps from the logits of this one's real heads


def sizes_of(layer: LayerChoice, context: LayerContext, embed_dim: int, backbone: Backbone) -> Sizes:
    """A layer in numbers."""
    H, E, N = layer.num_heads, layer.num_hallucinated, layer.num_tokens
    variant = None if layer.hallucination is None else HALLUCINATION[layer.hallucination]
    stride, T = backbone.key_stride(N), N + backbone.num_prefix_tokens
    numbers = (embed_dim, backbone.head_dim, H, H - E, E, N, T, T // stride**2, stride)
    exported = (context.exports_maps, context.exports_logits)
    return Sizes(*numbers, context.tokens_before, embed_dim, context.on_grid, *exported, variant)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One network of a search space: frozen, hashable, JSON. Holds choices, never weights or derived numbers.

    Raises:
        ArchitectureError: A rule between layers is broken; the message lists every break.
    """

    embed_dim: int  # channels of every token before the first layer, and behind it until a layer has more
    stem: str = "patch"  # how an image becomes patch tokens, by its name in `nas.arch.operators`
    layers: tuple[LayerChoice, ...]  # one choice per layer; the depth is its length

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "embed_dim", int(self.embed_dim))
        problems = [f"layer {i}: {text}" for i, text in self._problems()]
        if not isinstance(self.stem, str) or self.stem not in STEMS:
            problems.append(f"stem must be one of {', '.join(STEMS)}, got {self.stem!r}")
        if self.embed_dim < 1:
            problems.append(f"embed_dim must be at least 1, got {self.embed_dim}")
        if not self.layers:
            problems.append("an architecture needs at least one layer")
        if problems:
            raise ArchitectureError("architecture: " + "; ".join(problems))

    def _problems(self) -> Iterator[tuple[int, str]]:
        heads = derived = arriving = 0  # of the maps that could be shared
        on_grid, width = True, self.embed_dim
        for i, layer in enumerate(self.layers):
            tokens, kind = layer.num_tokens, layer.kind
            if tokens != arriving:
                heads = derived = 0
            if i and (tokens != arriving or layer.reducer):
                yield from ((i, text) for text in token_problems(arriving, tokens, layer.reducer))
            if layer.reducer and (broken := REDUCERS[layer.reducer].broken(tokens, on_grid, arriving)):
                yield i, broken
            on_grid = on_grid and layer.keeps_grid
            if layer.ffn_conv and not on_grid:
                yield i, OFF_GRID
            if kind.broken is not None:
                own = (tokens, layer.num_heads, layer.num_hallucinated)
                if broken := kind.broken(Place(*own, arriving, on_grid, heads, derived, 1, None)):
                    yield i, broken
            if not kind.shares:
                provided = (layer.num_heads, layer.num_hallucinated)
                heads, derived = provided if kind.provides else (0, 0)
            arriving = tokens
            if layer.embed_dim and layer.embed_dim <= width:
                yield i, f"embed_dim {layer.embed_dim} is not above the {width} that arrive (C16)"
            width = layer.embed_dim or width
            hidden, rank = width * layer.mlp_ratio, width * layer.ffn_rank
            if abs(hidden - round(hidden)) > 1e-6 or round(hidden) < 1:
                yield i, f"mlp_ratio {layer.mlp_ratio} x embed_dim {width} is not whole and positive"
            if abs(rank - round(rank)) > 1e-6 or round(rank) < 1:
                yield i, f"ffn_rank {layer.ffn_rank} x embed_dim {width} is not whole and positive"

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Channels of every token in each layer, behind its reducer."""
        return tuple(accumulate((layer.embed_dim for layer in self.layers), max, initial=self.embed_dim))[1:]

    def hidden_dim(self, layer: int) -> int:
        """Hidden channels of a layer's feed-forward."""
        return round(self.widths[layer] * self.layers[layer].mlp_ratio)

    def rank(self, layer: int) -> int | None:
        """Rank of a layer's factorised hidden-to-output matrix; None where it is whole."""
        share = self.layers[layer].ffn_rank
        return None if share == 1 else round(self.widths[layer] * share)

    def context(self, layer: int, backbone: "Backbone") -> LayerContext:
        """What a layer depends on beside its own choice."""
        choice, consumers = self.layers[layer], []
        if choice.kind.provides:
            consumers = list(takewhile(lambda later: later.kind.shares, self.layers[layer + 1 :]))
        return LayerContext(
            tokens_before=self.layers[layer - 1].num_tokens if layer else backbone.num_patches,
            width_before=(self.widths[layer - 1] if layer else self.embed_dim) if choice.embed_dim else 0,
            on_grid=all(earlier.keeps_grid for earlier in self.layers[: layer + 1]),
            exports_maps=any(not later.num_hallucinated for later in consumers),
            exports_logits=any(later.num_hallucinated for later in consumers),
        )

    @cached_property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON; the same in every process."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; genes at their default are left out, so that new ones keep old digests."""
        written = [
            {gene: value for gene in WRITTEN if (value := getattr(layer, gene)) != LEFT_OUT.get(gene)}
            for layer in self.layers
        ]
        stem = {} if self.stem == "patch" else {"stem": self.stem}
        return {"embed_dim": self.embed_dim, **stem, "layers": written}

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, values: Any) -> "Architecture":
        """Inverse of `to_dict`; an ArchitectureError names unknown or missing fields, or a broken rule."""
        try:
            unknown = sorted(set(values) - {"embed_dim", "stem", "layers"})
            if unknown:
                raise ArchitectureError(f"architecture: unknown field {', '.join(map(repr, unknown))}")
            layers = tuple(LayerChoice(**layer) for layer in values["layers"])
            return cls(embed_dim=int(values["embed_dim"]), stem=values.get("stem", "patch"), layers=layers)
        except KeyError as error:
            raise ArchitectureError(f"architecture: field {error} is missing", hint=WRITTEN_BY) from error
        except (OverflowError, TypeError, ValueError) as error:
            raise ArchitectureError(f"architecture: {error}", hint=WRITTEN_BY) from error

    @classmethod
    def from_json(cls, text: str) -> "Architecture":
        """Inverse of `to_json`; an ArchitectureError where it is not JSON, or as of `from_dict`."""
        try:
            values = parse_json(text)
        except ValueError as error:
            raise ArchitectureError(f"architecture: not JSON: {error}") from error
        return cls.from_dict(values)
