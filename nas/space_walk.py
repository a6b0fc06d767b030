"""Which choices may follow which: walks over the layers with the state that later layers depend on.

Every count, draw and repair of a `SearchSpace` is such a walk, so nothing is drawn and thrown away.
The feed-forward of a layer is free of the others, so walks go over *structures*, the choices without it, and
multiply.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, NamedTuple

from nas.architecture import (
    AttentionKind,
    Backbone,
    Hallucination,
    LayerChoice,
    Reducer,
    hallucinated_heads,
    is_square,
)
from nas.space_reasons import broken_rule


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDomain:
    """What may be chosen for one layer; the names and meanings are those of `LayerChoice`."""

    num_tokens: tuple[int, ...]
    reducer: tuple[Reducer, ...] = (Reducer.POOL,)
    attention: tuple[AttentionKind, ...] = (AttentionKind.DYNAMIC,)
    hallucination_ratio: tuple[float, ...] = (0.0,)
    hallucination: tuple[Hallucination, ...] = (Hallucination.COPY,)
    num_heads: tuple[int, ...]
    ffn_rank: tuple[float, ...] = (1.0,)
    mlp_ratio: tuple[float, ...] = (4.0,)

    def __post_init__(self) -> None:
        kinds = (("reducer", Reducer), ("attention", AttentionKind), ("hallucination", Hallucination))
        for gene, kind in kinds:
            object.__setattr__(self, gene, tuple(kind(value) for value in getattr(self, gene)))


GENES = tuple(f.name for f in fields(LayerDomain))
DECIDED_IN_ORDER = (  # a gene is repaired to what the ones before it leave possible
    "num_tokens",
    "reducer",
    "attention",
    "num_heads",
    "hallucination_ratio",
    "hallucination",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Rules between layers that a space may set; the others follow from what the operators are.

    Attributes:
        max_shared: Most shared layers in a row behind one provider (C4).
        max_reductions: Most layers that reduce their tokens (C12).
        static_after_reduction: Whether layers may be static once tokens were reduced by pooling (C7). Behind
            `glad` none is.
    """

    max_shared: int = 2
    max_reductions: int = 3
    static_after_reduction: bool = False


class State(NamedTuple):
    """What the layers chosen so far leave to the next one.

    Attributes:
        layer: About to be chosen.
        arriving: Patch tokens.
        on_grid: Whether these lie on their square grid.
        heads: Of the maps that could be shared; 0: none.
        hallucinated: How many of these heads are derived.
        shares_left: Layers that may still share these maps.
        reductions_left: Layers that may still reduce.
    """

    layer: int
    arriving: int
    on_grid: bool
    heads: int
    hallucinated: int
    shares_left: int
    reductions_left: int


Option = tuple[LayerChoice, State]
"""A legal structure (a choice whose feed-forward is that of `PLAIN`) and the state that it leaves."""

PLAIN: dict[str, Any] = {"mlp_ratio": 4.0, "ffn_rank": 1.0}


class Walk:
    """The legal sequences of layers of some domains over one backbone; what it has found once, it keeps."""

    def __init__(self, backbone: Backbone, layers: Sequence[LayerDomain], rules: Rules) -> None:
        self.backbone, self.layers, self.rules = backbone, layers, rules
        patches = backbone.num_patches
        self.start = State(0, patches, True, 0, 0, 0, self._reductions(0, patches, rules.max_reductions))
        self._options: dict[State, tuple[Option, ...]] = {}
        self._alive: dict[tuple[State, int], tuple[Option, ...]] = {}
        self._counts: dict[tuple[State, int], int] = {}
        self._nearest: dict[tuple[Any, ...], tuple[LayerChoice, State]] = {}

    def options(self, state: State) -> tuple[Option, ...]:
        """Legal structures in a state, distinct and canonical. Some may lead nowhere."""
        if state not in self._options:
            self._options[state] = tuple(dict.fromkeys(self._enumerate(state)))
        return self._options[state]

    def feed_forwards(self, layer: int) -> tuple[tuple[float, float], ...]:
        """The distinct (mlp_ratio, ffn_rank) of a layer."""
        return feed_forwards(self.layers[layer])

    def _enumerate(self, state: State) -> Iterator[Option]:
        domain = self.layers[state.layer]
        for tokens in domain.num_tokens:
            reduced = tokens < state.arriving
            if tokens > state.arriving or (reduced and not state.reductions_left):
                continue
            for reducer in domain.reducer if reduced else (None,):
                pooled = reducer is not None and reducer is not Reducer.GLAD
                if pooled and not (state.on_grid and is_square(tokens)):
                    continue
                on_grid = state.on_grid and reducer is not Reducer.GLAD
                for kind, heads, ratio, variant in self._attention(domain, state, tokens, on_grid):
                    choice = LayerChoice(
                        num_tokens=tokens,
                        reducer=reducer,
                        attention=kind,
                        hallucination_ratio=ratio,
                        hallucination=variant,
                        num_heads=heads,
                        **PLAIN,
                    )
                    yield choice, self._after(state, choice, on_grid)

    def _attention(
        self, domain: LayerDomain, state: State, tokens: int, on_grid: bool
    ) -> Iterator["AttentionChoice"]:
        """The attention that the rules leave to a layer of so many tokens."""
        shareable = state.shares_left > 0 and tokens == state.arriving
        provider = (state.heads, state.hallucinated) if shareable else (0, 0)
        for found in attention_choices(domain, *provider):
            if found[0] is AttentionKind.STATIC and not self.may_be_static(tokens, on_grid):
                continue
            if found[0] is AttentionKind.LINEAR and not self.linear_pays(tokens):
                continue
            yield found

    def may_be_static(self, tokens: int, on_grid: bool) -> bool:
        """Whether a layer of so many patch tokens may have static maps (C7)."""
        return on_grid and (self.rules.static_after_reduction or tokens == self.backbone.num_patches)

    def linear_pays(self, tokens: int) -> bool:
        """Whether linear attention over so many patch tokens is the cheaper one (C8)."""
        return tokens + self.backbone.num_prefix_tokens > self.backbone.head_dim + 4

    def _after(self, state: State, choice: LayerChoice, on_grid: bool) -> State:
        """The state behind a choice; what no later layer can make use of is left out of it."""
        following, reductions = state.layer + 1, state.reductions_left - (choice.reducer is not None)
        heads = hallucinated = left = 0
        shares = following < len(self.layers) and AttentionKind.SHARED in self.layers[following].attention
        if shares and choice.attention is AttentionKind.DYNAMIC:
            heads, hallucinated, left = choice.num_heads, choice.num_hallucinated, self.rules.max_shared
        elif shares and choice.attention is AttentionKind.SHARED:
            heads, hallucinated, left = state.heads, state.hallucinated, state.shares_left - 1
        if not left:
            heads = hallucinated = 0
        reductions = self._reductions(following, choice.num_tokens, reductions)
        return State(following, choice.num_tokens, on_grid, heads, hallucinated, left, reductions)

    def _reductions(self, layer: int, tokens: int, left: int) -> int:
        """Reductions left, or as many as later layers have lower counts to reduce to."""
        lower = {n for domain in self.layers[layer:] for n in domain.num_tokens if n < tokens}
        return min(left, len(lower))

    def count(self, state: State, depth: int) -> int:
        """Sequences from a state to the end of `depth` layers."""
        if state.layer == depth:
            return 1
        key = (state, depth)
        if key not in self._counts:
            behind = sum(self.count(following, depth) for _, following in self.options(state))
            self._counts[key] = behind * len(self.feed_forwards(state.layer))
        return self._counts[key]

    def alive(self, state: State, depth: int) -> tuple[Option, ...]:
        """The options of a state that lead to a complete sequence."""
        key = (state, depth)
        if key not in self._alive:
            self._alive[key] = tuple(o for o in self.options(state) if self.count(o[1], depth))
        return self._alive[key]

    def why_not(self, layers: Sequence[LayerChoice]) -> str:
        """Why a sequence is not legal: the first rule that a choice breaks; empty when none is broken."""
        state = self.start
        for i, layer in enumerate(layers):
            following = dict(self.options(state)).get(structure_of(layer))
            if following is None or (layer.mlp_ratio, layer.ffn_rank) not in self.feed_forwards(i):
                return f"layer {i}: {broken_rule(self, state, layer)}"
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
                named = dict(zip(GENES, genes, strict=True))
                structure, following = _nearest(self.alive(state, depth), named)
                layer = with_feed_forward(structure, named["mlp_ratio"], named["ffn_rank"])
                self._nearest[key] = (layer, following)
            choice, state = self._nearest[key]
            layers.append(choice)
        return tuple(layers)


AttentionChoice = tuple[AttentionKind, int, float, Hallucination | None]
"""(kind, heads, hallucination ratio, variant) of a layer."""


def attention_choices(domain: LayerDomain, heads: int, hallucinated: int) -> Iterator[AttentionChoice]:
    """Every attention that a layer may have behind a provider of so many heads; 0: no provider."""
    for kind in domain.attention:
        if kind is AttentionKind.SHARED:
            if heads in domain.num_heads:
                for ratio in domain.hallucination_ratio:
                    again = hallucinated_heads(heads, ratio) == hallucinated > 0
                    for variant in domain.hallucination if again else (None,):
                        yield kind, heads, hallucinated / heads if again else 0.0, variant
            continue
        for own in domain.num_heads:
            if kind is not AttentionKind.DYNAMIC:
                yield kind, own, 0.0, None
                continue
            for ratio in domain.hallucination_ratio:
                derived = hallucinated_heads(own, ratio)
                for variant in domain.hallucination if derived else (None,):
                    yield kind, own, derived / own, variant


@lru_cache(maxsize=4096)
def feed_forwards(domain: LayerDomain) -> tuple[tuple[float, float], ...]:
    """The distinct (mlp_ratio, ffn_rank) of a domain: ranks that save nothing are 1."""
    made = (
        LayerChoice(num_tokens=1, num_heads=1, mlp_ratio=ratio, ffn_rank=rank)
        for ratio in domain.mlp_ratio
        for rank in domain.ffn_rank
    )
    return tuple(dict.fromkeys((layer.mlp_ratio, layer.ffn_rank) for layer in made))


@lru_cache(maxsize=65536)
def with_feed_forward(structure: LayerChoice, mlp_ratio: float, ffn_rank: float) -> LayerChoice:
    """A structure with a feed-forward."""
    return replace(structure, mlp_ratio=mlp_ratio, ffn_rank=ffn_rank)


def structure_of(layer: LayerChoice) -> LayerChoice:
    """A choice without its feed-forward."""
    return with_feed_forward(layer, **PLAIN)


def _nearest(options: Sequence[Option], wanted: Mapping[str, Any]) -> Option:
    """The option that agrees with the wanted genes, each in turn, or has the nearest legal value."""
    remaining = list(options)
    for gene in DECIDED_IN_ORDER:
        legal = list(dict.fromkeys(getattr(choice, gene) for choice, _ in remaining))
        if len(legal) > 1:
            goal = wanted[gene]
            if gene == "hallucination_ratio":
                first = remaining[0][0]
                goal = hallucinated_heads(first.num_heads, goal) / first.num_heads
                if first.attention is AttentionKind.SHARED and goal not in legal:
                    goal = 0.0
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
