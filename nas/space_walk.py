"""Which choices may follow which: walks over the layers with the state that later layers depend on.

Every count, draw, repair and extreme of a `SearchSpace` is such a walk, so nothing is drawn and thrown away.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from nas import cost
from nas.architecture import (
    AttentionKind,
    Backbone,
    Hallucination,
    LayerChoice,
    Reducer,
    hallucinated_heads,
)

State = tuple[int, int, int]
"""Layer about to be chosen; patch tokens arriving; heads of the maps that could be shared (0: none)."""

Option = tuple[LayerChoice, State]
"""A legal choice and the state that it leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDomain:
    """What may be chosen for one layer; the names and meanings are those of `LayerChoice`."""

    num_tokens: tuple[int, ...]
    reducer: tuple[Reducer, ...] = (Reducer.POOL,)
    attention: tuple[AttentionKind, ...] = (AttentionKind.DYNAMIC,)
    hallucination_ratio: tuple[float, ...] = (0.0,)
    hallucination: tuple[Hallucination, ...] = (Hallucination.COPY,)
    num_heads: tuple[int, ...]
    mlp_ratio: tuple[float, ...] = (4.0,)


GENES = tuple(f.name for f in fields(LayerDomain))
DECIDED_IN_ORDER = (  # a gene is repaired to what the ones before it leave possible
    "num_tokens",
    "reducer",
    "attention",
    "num_heads",
    "hallucination_ratio",
    "hallucination",
    "mlp_ratio",
)


@dataclass(frozen=True, slots=True)
class _Priced:
    """An option whose maps the next layer consumes or not, and what it costs."""

    choice: LayerChoice
    following: State
    exports: bool
    macs: int
    params: int


class Walk:
    """The legal sequences of layers of some domains over one backbone; what it has found once, it keeps."""

    def __init__(self, backbone: Backbone, layers: Sequence[LayerDomain]) -> None:
        self.backbone, self.layers = backbone, layers
        self.start: State = (0, backbone.num_patches, 0)
        self._options: dict[State, tuple[Option, ...]] = {}
        self._alive: dict[tuple[State, int], tuple[Option, ...]] = {}
        self._counts: dict[tuple[State, int], int] = {}
        self._priced: dict[tuple[State, int], tuple[tuple[_Priced, ...], tuple[_Priced, ...]]] = {}
        self._nearest: dict[tuple[Any, ...], Option] = {}

    def options(self, state: State) -> tuple[Option, ...]:
        """Legal choices in a state, distinct and canonical. Some may lead nowhere."""
        if state not in self._options:
            self._options[state] = tuple(dict.fromkeys(self._enumerate(*state)))
        return self._options[state]

    def _enumerate(self, layer: int, arriving: int, provider: int) -> Iterator[Option]:
        domain = self.layers[layer]
        for tokens in domain.num_tokens:
            if tokens > arriving:
                continue
            reducers = domain.reducer if tokens < arriving else (None,)
            for reducer in reducers:
                shareable = provider if tokens == arriving else 0
                for attention, heads, ratio, variant, left in attention_choices(domain, shareable):
                    for mlp_ratio in domain.mlp_ratio:
                        choice = LayerChoice(
                            num_tokens=tokens,
                            reducer=reducer,
                            attention=attention,
                            hallucination_ratio=ratio,
                            hallucination=variant,
                            num_heads=heads,
                            mlp_ratio=mlp_ratio,
                        )
                        yield choice, (layer + 1, tokens, left)

    def count(self, state: State, depth: int) -> int:
        """Sequences from a state to the end of `depth` layers."""
        if state[0] == depth:
            return 1
        key = (state, depth)
        if key not in self._counts:
            self._counts[key] = sum(self.count(following, depth) for _, following in self.options(state))
        return self._counts[key]

    def alive(self, state: State, depth: int) -> tuple[Option, ...]:
        """The options of a state that lead to a complete sequence."""
        key = (state, depth)
        if key not in self._alive:
            self._alive[key] = tuple(o for o in self.options(state) if self.count(o[1], depth))
        return self._alive[key]

    def why_not(self, layers: Sequence[LayerChoice]) -> str:
        """Why a sequence is not legal: its first choice that is not an option; empty when all are."""
        state = self.start
        for i, layer in enumerate(layers):
            following = dict(self.options(state)).get(layer)
            if following is None:
                return f"layer {i}: {layer} is not a choice of the space here"
            state = following
        return ""

    def nearest(self, wanted: Sequence[tuple[Any, ...]]) -> tuple[LayerChoice, ...]:
        """The sequence for wanted genes, one tuple a layer in the order of `GENES`, repaired where illegal.

        Left to right, gene by gene: a value that cannot be had becomes its nearest legal one (tokens the next
        lower count, an impossible kind of attention a dynamic one).
        """
        depth, state, layers = len(wanted), self.start, []
        for genes in wanted:
            key = (state, depth, genes)
            if key not in self._nearest:
                self._nearest[key] = _nearest(self.alive(state, depth), dict(zip(GENES, genes, strict=True)))
            choice, state = self._nearest[key]
            layers.append(choice)
        return tuple(layers)

    def least(
        self, embed_dim: int, depth: int, macs_weight: float, params_weight: float
    ) -> tuple[float, tuple[LayerChoice, ...]] | None:
        """The least weighted sum of the layers' MACs and parameters, exactly, with its sequence if any.

        Negative weights ask for the greatest.
        """
        found: dict[tuple[State, bool], tuple[float, tuple[LayerChoice, ...]] | None] = {}

        def from_here(state: State, must_share: bool) -> tuple[float, tuple[LayerChoice, ...]] | None:
            if state[0] == depth:
                return None if must_share else (0.0, ())
            key = (state, must_share)
            if key not in found:
                best = None
                for priced in self._prices(state, embed_dim)[must_share]:
                    rest = from_here(priced.following, priced.exports)
                    if rest is None:
                        continue
                    value = macs_weight * priced.macs + params_weight * priced.params + rest[0]
                    if best is None or value < best[0]:
                        best = (value, (priced.choice, *rest[1]))
                found[key] = best
            return found[key]

        return from_here(self.start, False)

    def _prices(self, state: State, embed_dim: int) -> tuple[tuple[_Priced, ...], tuple[_Priced, ...]]:
        """The options with their costs: those that do not consume the maps before them, and those that do."""
        key = (state, embed_dim)
        if key not in self._priced:
            consumers: tuple[list[_Priced], list[_Priced]] = ([], [])
            for choice, following in self.options(state):
                shared = choice.attention is AttentionKind.SHARED
                for exports in (False, True) if following[2] else (False,):
                    materialised = exports and not shared
                    price = cost.layer_macs_params(choice, state[1], embed_dim, self.backbone, materialised)
                    consumers[shared].append(_Priced(choice, following, exports, *price))
            self._priced[key] = (tuple(consumers[0]), tuple(consumers[1]))
        return self._priced[key]


def attention_choices(
    domain: LayerDomain, provider: int
) -> Iterator[tuple[AttentionKind, int, float, Hallucination | None, int]]:
    """(kind, heads, ratio, variant, heads left for sharing) of every attention a layer may have."""
    for kind in domain.attention:
        if kind is AttentionKind.SHARED:
            if provider and provider in domain.num_heads:
                yield kind, provider, 0.0, None, provider
            continue
        for heads in domain.num_heads:
            if kind is AttentionKind.STATIC:
                yield kind, heads, 0.0, None, 0
                continue
            for ratio in domain.hallucination_ratio:
                variants = domain.hallucination if hallucinated_heads(heads, ratio) else (None,)
                for variant in variants:
                    yield kind, heads, ratio, variant, heads


def _nearest(options: Sequence[Option], wanted: Mapping[str, Any]) -> Option:
    """The option that agrees with the wanted genes, each in turn, or has the nearest legal value."""
    remaining = list(options)
    for gene in DECIDED_IN_ORDER:
        legal = list(dict.fromkeys(getattr(choice, gene) for choice, _ in remaining))
        if len(legal) > 1:
            goal = wanted[gene]
            if gene == "hallucination_ratio":
                heads = remaining[0][0].num_heads
                goal = hallucinated_heads(heads, goal) / heads
            value = goal if goal in legal else _fallback(gene, goal, legal)
            remaining = [option for option in remaining if getattr(option[0], gene) == value]
    return remaining[0]


def _fallback(gene: str, goal: Any, legal: Sequence[Any]) -> Any:
    if gene == "num_tokens":
        lower = [value for value in legal if value <= goal]
        return max(lower) if lower else min(legal)
    if isinstance(legal[0], str) or legal[0] is None:
        return AttentionKind.DYNAMIC if AttentionKind.DYNAMIC in legal else legal[0]
    return min(legal, key=lambda value: (abs(value - goal), value))
