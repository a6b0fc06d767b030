"""The genotype: what is chosen for every layer, as a value. And `Backbone`, the part that is fixed."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import takewhile
from typing import Any

from nas.arch.backbone import Backbone
from nas.base import ArchitectureError

ROUNDING = 1e-9  # 0.1 * 10 must count as one head
WRITTEN_BY = "such JSON is written by Architecture.to_json"


class AttentionKind(StrEnum):
    """Where a layer's attention maps come from."""

    DYNAMIC = "dynamic"
    """Computed from the tokens by queries and keys (plain attention, or hallucinated in part)."""
    STATIC = "static"
    """Learned matrices, the same for every image (DGSSA, arXiv 2310.07664)."""
    SHARED = "shared"
    """The maps of the nearest earlier layer that is not shared (PSViT, arXiv 2108.03428)."""
    LINEAR = "linear"
    """No maps: linear-angular attention, linear in the number of tokens (Castling-ViT, arXiv 2211.10526)."""


class Reducer(StrEnum):
    """How patch tokens are reduced before a layer."""

    POOL = "pool"
    """Average over the target grid (PSViT token pooling)."""
    CONV_POOL = "conv_pool"
    """Depth-wise 3x3 correction, zero at the start, then the same average."""
    GLAD = "glad"
    """The average plus what learned queries gather from all tokens (DGSSA + GLAD, arXiv 2310.07664)."""


class Hallucination(StrEnum):
    """How hallucinated heads derive their maps from the real heads' (hMHSA, arXiv 2306.10875)."""

    COPY = "copy"
    """A parent's logits times a learned gain: stays on the fused attention kernel."""
    MIX = "mix"
    """The parent's logits plus a 1x1 mix of the real heads'."""
    MIX_CONV = "mix_conv"
    """The same plus a depth-wise 3x3 of the parent's patch-by-patch logits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChoice:
    """What is chosen for one layer. Canonical: a field that cannot change the network is at its default.

    Attributes:
        num_tokens: Patch tokens in this layer; class token not counted. Pooling leaves a square number,
            `glad` any.
        reducer: Present exactly where `num_tokens` is lower than in the layer before.
        attention: Source of the attention maps.
        hallucination_ratio: Hallucinated heads / all heads. Rounded down to whole heads on construction
            (METHODS C6), so 0.5 with 3 heads is stored as 1/3 and two spellings of one network are equal.
            A shared layer with one derives its maps anew from its provider's real heads (METHODS 5.3), so it
            has its provider's ratio; with 0 it takes the maps as they are.
        hallucination: Present exactly where `hallucination_ratio` > 0.
        num_heads: Heads, each `Backbone.head_dim` wide. A shared layer has its provider's.
        ffn_rank: Rank of the factorised hidden-to-output matrix / `embed_dim`; 1: not factorised. A rank that
            saves nothing, `mlp_ratio` / (`mlp_ratio` + 1) or more, is stored as 1 (C14).
        mlp_ratio: Hidden width of the feed-forward / `embed_dim`.
    """

    num_tokens: int
    reducer: Reducer | None = None
    attention: AttentionKind = AttentionKind.DYNAMIC
    hallucination_ratio: float = 0.0
    hallucination: Hallucination | None = None
    num_heads: int
    ffn_rank: float = 1.0
    mlp_ratio: float

    def __post_init__(self) -> None:
        store = object.__setattr__
        try:
            store(self, "num_tokens", int(self.num_tokens))
            store(self, "num_heads", int(self.num_heads))
            store(self, "mlp_ratio", float(self.mlp_ratio))
            store(self, "ffn_rank", float(self.ffn_rank))
            store(self, "attention", AttentionKind(self.attention))
            store(self, "reducer", None if self.reducer is None else Reducer(self.reducer))
            variant = None if self.hallucination is None else Hallucination(self.hallucination)
            ratio = float(self.hallucination_ratio)
        except (OverflowError, TypeError, ValueError) as error:
            raise ArchitectureError(f"layer choice: {error}") from error
        problems = []
        if self.num_tokens < 1:
            problems.append(f"num_tokens must be at least 1, got {self.num_tokens}")
        elif self.reducer in (Reducer.POOL, Reducer.CONV_POOL) and not is_square(self.num_tokens):
            problems.append(f"{self.reducer} leaves a square number of tokens, got {self.num_tokens} (C10)")
        if self.num_heads < 1:
            problems.append(f"num_heads must be at least 1, got {self.num_heads}")
        if not 0 < self.mlp_ratio < math.inf:
            problems.append(f"mlp_ratio must be positive and finite, got {self.mlp_ratio}")
        if not 0 <= ratio < 1:
            problems.append(f"hallucination_ratio must be in [0, 1), got {ratio}")
        if not 0 < self.ffn_rank <= 1:
            problems.append(f"ffn_rank must be above 0 and at most 1, got {self.ffn_rank}")
        if ratio > 0 and self.attention in (AttentionKind.STATIC, AttentionKind.LINEAR):
            kind = self.attention.value
            problems.append(f"hallucination_ratio {ratio} needs dynamic or shared attention, got {kind} (C6)")
        if problems:
            raise ArchitectureError("layer choice: " + "; ".join(problems))
        hallucinated = hallucinated_heads(self.num_heads, ratio)
        store(self, "hallucination_ratio", hallucinated / self.num_heads)
        store(self, "hallucination", (variant or Hallucination.COPY) if hallucinated else None)
        if self.ffn_rank >= self.mlp_ratio / (self.mlp_ratio + 1) - ROUNDING:
            store(self, "ffn_rank", 1.0)

    @property
    def num_hallucinated(self) -> int:
        """Heads whose maps are derived."""
        return hallucinated_heads(self.num_heads, self.hallucination_ratio)

    @property
    def num_real(self) -> int:
        """Heads with queries and keys of their own."""
        return self.num_heads - self.num_hallucinated


def hallucinated_heads(num_heads: int, ratio: float) -> int:
    """Whole hallucinated heads for a ratio: rounded down, and at least one head stays real (C6)."""
    return min(int(num_heads * ratio + ROUNDING), num_heads - 1)


def is_square(num_tokens: int) -> bool:
    """Whether so many tokens can lie on a square grid."""
    return math.isqrt(num_tokens) ** 2 == num_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerContext:
    """What a layer's network and cost depend on beside its own choice.

    Attributes:
        tokens_before: Patch tokens that arrive, before the reducer.
        on_grid: Whether the layer's patch tokens lie on their square grid: no `glad` up to this layer.
        exports_maps: Whether a later layer takes this one's maps, so that they are materialised.
        exports_logits: Whether a later layer derives maps from the logits of this one's real heads.
    """

    tokens_before: int
    on_grid: bool = True
    exports_maps: bool = False
    exports_logits: bool = False

    @property
    def exports(self) -> bool:
        """Whether a later layer shares this one's attention."""
        return self.exports_maps or self.exports_logits


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One network of a search space: frozen, hashable, JSON. Holds choices, never weights or derived numbers.

    Attributes:
        embed_dim: Channels of every token.
        layers: One choice per layer; the depth is its length.

    Raises:
        ArchitectureError: A rule between layers is broken; the message lists every break.
    """

    embed_dim: int
    layers: tuple[LayerChoice, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "embed_dim", int(self.embed_dim))
        problems = [f"layer {i}: {text}" for i, text in self._problems()]
        if self.embed_dim < 1:
            problems.append(f"embed_dim must be at least 1, got {self.embed_dim}")
        if not self.layers:
            problems.append("an architecture needs at least one layer")
        if problems:
            raise ArchitectureError("architecture: " + "; ".join(problems))

    def _problems(self) -> Iterator[tuple[int, str]]:
        provider: LayerChoice | None = None
        on_grid = True
        for i, layer in enumerate(self.layers):
            before = self.layers[i - 1] if i else None
            if before is not None:
                arriving, tokens = before.num_tokens, layer.num_tokens
                if tokens > arriving:
                    yield i, f"num_tokens grows from {arriving} to {tokens} (C11)"
                if (layer.reducer is not None) != (tokens < arriving):
                    yield i, "a reducer is present exactly where num_tokens falls"
                if tokens != arriving:
                    provider = None
            if layer.reducer is Reducer.GLAD:
                on_grid = False
            elif layer.reducer is not None and not on_grid:
                yield i, f"{layer.reducer} needs the grid that an earlier glad dissolved (C10)"
            if layer.attention is AttentionKind.SHARED:
                if provider is None:
                    yield i, "shared attention without a dynamic provider at this token count (C1, C2)"
                elif provider.num_heads != layer.num_heads:
                    yield i, f"{layer.num_heads} heads share the maps of {provider.num_heads} (C3)"
                elif layer.num_hallucinated not in (0, provider.num_hallucinated):
                    derived = f"{layer.num_hallucinated} heads derived from a provider"
                    yield i, f"{derived} that derives {provider.num_hallucinated} (C6)"
            else:
                provider = layer if layer.attention is AttentionKind.DYNAMIC else None
            hidden, rank = self.embed_dim * layer.mlp_ratio, self.embed_dim * layer.ffn_rank
            if abs(hidden - round(hidden)) > 1e-6:
                yield i, f"mlp_ratio {layer.mlp_ratio} x embed_dim {self.embed_dim} is not whole"
            if abs(rank - round(rank)) > 1e-6:
                yield i, f"ffn_rank {layer.ffn_rank} x embed_dim {self.embed_dim} is not whole"

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    def hidden_dim(self, layer: int) -> int:
        """Hidden channels of a layer's feed-forward."""
        return round(self.embed_dim * self.layers[layer].mlp_ratio)

    def rank(self, layer: int) -> int | None:
        """Rank of a layer's factorised hidden-to-output matrix; None where it is whole."""
        share = self.layers[layer].ffn_rank
        return None if share == 1 else round(self.embed_dim * share)

    def context(self, layer: int, backbone: "Backbone") -> LayerContext:
        """What a layer depends on beside its own choice."""
        choice, consumers = self.layers[layer], []
        if choice.attention is AttentionKind.DYNAMIC:
            following = self.layers[layer + 1 :]
            consumers = list(takewhile(lambda later: later.attention is AttentionKind.SHARED, following))
        return LayerContext(
            tokens_before=self.layers[layer - 1].num_tokens if layer else backbone.num_patches,
            on_grid=all(earlier.reducer is not Reducer.GLAD for earlier in self.layers[: layer + 1]),
            exports_maps=any(not later.num_hallucinated for later in consumers),
            exports_logits=any(later.num_hallucinated for later in consumers),
        )

    @cached_property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON; the same in every process."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; fields at their default are left out, so that new genes keep old digests."""
        return {"embed_dim": self.embed_dim, "layers": [_layer_to_dict(layer) for layer in self.layers]}

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, values: Any) -> "Architecture":
        """Inverse of `to_dict`.

        Raises:
            ArchitectureError: Unknown or missing fields, or a broken rule.
        """
        try:
            unknown = sorted(set(values) - {"embed_dim", "layers"})
            if unknown:
                raise ArchitectureError(f"architecture: unknown field {', '.join(map(repr, unknown))}")
            layers = tuple(LayerChoice(**layer) for layer in values["layers"])
            return cls(embed_dim=int(values["embed_dim"]), layers=layers)
        except KeyError as error:
            raise ArchitectureError(f"architecture: field {error} is missing", hint=WRITTEN_BY) from error
        except (OverflowError, TypeError, ValueError) as error:
            raise ArchitectureError(f"architecture: {error}", hint=WRITTEN_BY) from error

    @classmethod
    def from_json(cls, text: str) -> "Architecture":
        """Inverse of `to_json`.

        Raises:
            ArchitectureError: Not JSON, unknown or missing fields, or a broken rule.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ArchitectureError(f"architecture: not JSON: {error}") from error
        return cls.from_dict(values)


def _layer_to_dict(layer: LayerChoice) -> dict[str, Any]:
    values: dict[str, Any] = {
        "num_tokens": layer.num_tokens,
        "attention": layer.attention.value,
        "num_heads": layer.num_heads,
        "mlp_ratio": layer.mlp_ratio,
    }
    if layer.reducer is not None:
        values["reducer"] = layer.reducer.value
    if layer.ffn_rank != 1:
        values["ffn_rank"] = layer.ffn_rank
    if layer.hallucination is not None:
        values["hallucination_ratio"] = layer.hallucination_ratio
        values["hallucination"] = layer.hallucination.value
    return values
