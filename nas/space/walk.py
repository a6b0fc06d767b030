"""Which choices may follow which: sequences of layers, step by step, with the state that later layers depend on.

Every count, draw and repair of a `SearchSpace` goes such steps, so nothing is drawn and thrown away. The sizes of a
layer's feed-forward are free of the others, so steps are *structures*, the choices without them, and counts multiply.

What is legal is said once, by `broken_reduction` and `broken_attention`: options are what breaks neither, and messages
are what they say.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

from nas.arch import (
    ATTENTION,
    OFF_GRID,
    REDUCERS,
    Backbone,
    LayerChoice,
    Place,
    Rules,
    hallucinated_heads,
    token_problems,
)
from nas.base import ArchitectureError, cached_method, format_choices
from nas.space.domain import (
    AttentionChoice,
    LayerDomain,
    attention_choices,
    feed_forwards,
    structure,
    structure_of,
    with_feed_forward,
)

# A gene is repaired to what the ones before it leave possible.
DECIDED_IN_ORDER = (
    "num_tokens",
    "reducer",
    "embed_dim",
    "attention",
    "num_heads",
    "hallucination_ratio",
    "hallucination",
    "ffn_conv",
)


class State(NamedTuple):
    """What the layers chosen so far leave to the next one."""

    layer: int  # about to be chosen
    arriving: int  # patch tokens
    on_grid: bool  # whether these lie on their square grid
    width: int  # channels that arrive; 0: they never become more, or it does not matter how many there are
    heads: int  # of the maps that could be shared; 0: none
    hallucinated: int  # how many of these heads are derived
    shares_left: int  # layers that may still share these maps
    reductions_left: int  # layers that may still reduce

    def without_sharing(self) -> "State":
        """The same state, where nobody will share what could be."""
        return State(*self[:4], 0, 0, 0, self.reductions_left)  # `_replace` takes twice as long

    def at(self, layer: int) -> "State":
        """The same state before another layer."""
        return State(layer, *self[1:])


class Genes(NamedTuple):
    """Choices of a layer that rules between layers may exclude."""

    num_tokens: int
    reducer: str | None
    attention: str
    num_heads: int
    ffn_conv: bool


MOST_REASONS = 3  # for which a message says that a space is empty

Option = tuple[LayerChoice, State]
"""A legal structure (a choice whose feed-forward has the sizes of `PLAIN`) and the state that it leaves."""


class LegalSequences:
    """The legal sequences of layers of some domains over one backbone; what it has found once, it keeps."""

    def __init__(self, backbone: Backbone, layers: Sequence[LayerDomain], rules: Rules) -> None:
        self.backbone, self.layers, self.rules = backbone, layers, rules
        shares = (any(ATTENTION[kind].shares for kind in domain.attention) for domain in layers)
        self._shares = (*shares, False)
        later = (layers[i:] for i in range(len(layers) + 1))
        self._counts_from = [sorted({n for domain in rest for n in domain.num_tokens}) for rest in later]
        patches = backbone.num_patches
        self.grows = any(max(domain.embed_dim) for domain in layers)
        self.start = State(0, patches, True, 0, 0, 0, 0, self._reductions(0, patches, rules.max_reductions))
        alike = [(layers[i], self._shares[i + 1], tuple(self._counts_from[i + 1])) for i in range(len(layers))]
        self._first_alike = [alike.index(one) for one in alike]

    def begin(self, width: int) -> State:
        """The state before the first layer of networks of so many channels."""
        return self.start._replace(width=width) if self.grows else self.start

    @cached_method
    def options(self, state: State) -> tuple[Option, ...]:
        """Legal structures in a state, distinct and canonical. Some may lead nowhere."""
        return tuple(self._enumerate(self.layers[state.layer], state))

    def alike(self, state: State) -> State:
        """The same state before the first layer with the same options: a space of many equal layers is listed once."""
        return state if (first := self._first_alike[state.layer]) == state.layer else State(first, *state[1:])

    def unshared(self, state: State) -> Iterator[Option]:
        """The options that do not share."""
        return (option for option in self._enumerate(self.layers[state.layer], state) if not option[0].kind.shares)

    @cached_method
    def _unshared_counts(self, state: State) -> dict[State, int]:
        """How many options do not share, by the state behind them, of a state `without_sharing`."""
        if (first := self.alike(state)) != state:
            return {behind.at(state.layer + 1): n for behind, n in self._unshared_counts(first).items()}
        return Counter(behind for _, behind in self.unshared(state))

    @cached_method
    def sharing(self, state: State) -> tuple[Option, ...]:
        """The options that share what a state provides."""
        domain = self.layers[state.layer]
        kinds = tuple(kind for kind in domain.attention if ATTENTION[kind].shares)
        if not (
            state.shares_left and kinds and state.heads in domain.num_heads and state.arriving in domain.num_tokens
        ):
            return ()
        if (first := self.alike(state)) != state:
            return tuple((structure, behind.at(state.layer + 1)) for structure, behind in self.sharing(first))
        return tuple(
            self._enumerate(
                replace(domain, attention=kinds, num_heads=(state.heads,), num_tokens=(state.arriving,)), state
            )
        )

    def feed_forwards(self, layer: int) -> tuple[tuple[float, float], ...]:
        """The distinct (mlp_ratio, ffn_rank) of a layer."""
        return feed_forwards(self.layers[layer])

    def could_share(self, layer: int, tokens: int) -> Iterator[LayerChoice]:
        """All that shares in a layer of so many tokens, legal or not, behind whatever provider."""
        domain = self.layers[layer]
        ratios = {ratio for each in self.layers for ratio in each.hallucination_ratio} | {0.0}
        for kind, heads, ratio in product(domain.attention, domain.num_heads, ratios):
            derived = hallucinated_heads(heads, ratio)
            for variant in domain.hallucination if derived else (None,):
                if ATTENTION[kind].shares:
                    yield structure(tokens, None, 0, False, kind, heads, derived / heads, variant)

    def behind_sharing(self, state: State) -> State:
        """The state behind a layer that shares."""
        following, tokens = state.layer + 1, state.arriving
        left = state.shares_left - 1 if self._shares[following] else 0
        reductions = self._reductions(following, tokens, state.reductions_left)
        return State(following, *state[1:6], left, reductions)

    def _enumerate(self, domain: LayerDomain, state: State) -> Iterator[Option]:
        attention = {c: hallucinated_heads(c[1], c[2]) for c in attention_choices(domain, state.hallucinated)}
        for tokens in domain.num_tokens:
            legal: dict[bool, list[AttentionChoice]] = {}
            for reducer in domain.reducer if tokens < state.arriving else (None,):
                if self.broken_reduction(state, tokens, reducer):
                    continue
                on_grid = state.on_grid and (reducer is None or REDUCERS[reducer].keeps_grid)
                if on_grid not in legal:
                    at = (state, tokens, on_grid)
                    legal[on_grid] = [c for c, n in attention.items() if not self.broken_attention(*at, c[0], c[1], n)]
                free = (domain.widths(state.width, reducer), legal[on_grid], domain.convolutions(on_grid))
                for width, choice, convolves in product(*free):
                    chosen = structure(tokens, reducer, width, convolves, *choice)
                    yield chosen, self._after(state, chosen, on_grid)

    def broken_reduction(self, state: State, tokens: int, reducer: str | None) -> str:
        """The rule by which what arrives cannot become so many tokens; empty when it can."""
        for problem in token_problems(state.arriving, tokens, reducer):
            return problem
        if reducer is None:
            return ""
        if not state.reductions_left:
            return f"tokens are reduced more than {self.rules.max_reductions} times (C12)"
        return REDUCERS[reducer].broken(tokens, state.on_grid, state.arriving)

    def broken_attention(self, state: State, tokens: int, on_grid: bool, kind: str, heads: int, derived: int) -> str:
        """The rule by which tokens, on their grid or not, cannot have an attention; empty when they can."""
        broken = ATTENTION[kind].broken
        if broken is None:
            return ""
        provided = (state.heads, state.hallucinated, state.shares_left)
        space = (self.rules, self.backbone)
        return broken(Place(tokens, heads, derived, state.arriving, on_grid, *provided, space))

    def _after(self, state: State, choice: LayerChoice, on_grid: bool) -> State:
        """The state behind a choice; what no later layer can make use of is left out of it."""
        following, tokens, kind = state.layer + 1, choice.num_tokens, choice.kind
        heads = hallucinated = left = 0
        if kind.provides and self._shares[following] and self.rules.max_shared:
            heads, hallucinated, left = choice.num_heads, choice.num_hallucinated, self.rules.max_shared
        elif kind.shares and self._shares[following] and state.shares_left > 1:
            heads, hallucinated, left = state.heads, state.hallucinated, state.shares_left - 1
        reductions = self._reductions(following, tokens, state.reductions_left - (choice.reducer is not None))
        width = choice.embed_dim or state.width
        return State(following, tokens, on_grid, width, heads, hallucinated, left, reductions)

    def _reductions(self, layer: int, tokens: int, left: int) -> int:
        """Reductions left, or as many as later layers have lower counts to reduce to."""
        return min(left, bisect_left(self._counts_from[layer], tokens))

    @cached_method
    def count(self, state: State, depth: int) -> int:
        """Sequences from a state to the end of `depth` layers."""
        return self.total(state, frozenset((depth,)))

    @cached_method
    def total(self, state: State, depths: frozenset[int]) -> int:
        """Sequences from a state to the end of any of these numbers of layers."""
        ends = int(state.layer in depths)
        if state.layer == max(depths):
            return ends
        ways = sum(self.total(following, depths) for _, following in self.sharing(state))
        ways *= len(self.feed_forwards(state.layer))
        if state.heads:
            return ways + self.total(state.without_sharing(), depths)
        behind = sum(n * self.total(following, depths) for following, n in self._unshared_counts(state).items())
        return ends + behind * len(self.feed_forwards(state.layer))

    @cached_method
    def has_more_states(self, most: int, widths: tuple[int, ...]) -> bool:
        """Whether networks of these widths have more states than so many: the work of what looks at each."""
        count, states = 0, {self.begin(width) for width in widths}
        for _ in self.layers:
            count += len(states)
            if count > most:
                return True
            free = {
                behind for state in {s.without_sharing() for s in states} for behind in self._unshared_counts(state)
            }
            states = free | {behind for state in states for _, behind in self.sharing(state)}
        return count + len(states) > most

    @cached_method
    def unshared_genes(self, state: State) -> dict[State, frozenset[Genes]]:
        """The `genes_of` the options that do not share, by the state behind them."""
        if (first := self.alike(state)) != state:
            return {behind.at(state.layer + 1): genes for behind, genes in self.unshared_genes(first).items()}
        found: dict[State, set[Genes]] = {}
        for choice, behind in self.unshared(state):
            found.setdefault(behind, set()).add(genes_of(choice))
        return {behind: frozenset(genes) for behind, genes in found.items()}

    @cached_method
    def alive(self, state: State, depth: int) -> tuple[Option, ...]:
        """The options of a state that lead to a complete sequence."""
        return tuple(option for option in self.options(state) if self.count(option[1], depth))

    @cached_method
    def by_gene(self, state: State, depth: int) -> dict[int, dict[Any, Any]]:
        """The options of `alive` under their genes, one nested in the other as they are `DECIDED_IN_ORDER`."""
        tree: dict[int, dict[Any, Any]] = {}
        for option in self.alive(state, depth):
            branch: dict[Any, Any] = tree
            *genes, last = (getattr(option[0], gene) for gene in DECIDED_IN_ORDER)
            for gene in genes:
                branch = branch.setdefault(gene, {})
            branch[last] = option
        return tree

    @cached_method
    def _following(self, state: State) -> dict[LayerChoice, State]:
        return dict(self.options(state))

    def why_not(self, width: int, layers: Sequence[LayerChoice]) -> str:
        """Why a sequence is not legal behind a first width: the first rule that is broken; empty when none is."""
        state = self.begin(width)
        for i, layer in enumerate(layers):
            following = self._following(state).get(structure_of(layer))
            if following is None or (layer.mlp_ratio, layer.ffn_rank) not in self.feed_forwards(i):
                return f"layer {i}: {broken_rule(self, state, layer)}"
            state = following
        return ""

    def nearest(self, width: int, wanted: Sequence[tuple[Any, ...]]) -> tuple[LayerChoice, ...]:
        """The sequence for a first width and wanted genes, a tuple a layer as `LayerDomain.genes`, legal by repair.

        Left to right, gene by gene: a value that cannot be had becomes its nearest legal one (tokens the next lower
        count, an impossible kind of attention a dynamic one).
        """
        state, layers = self.begin(width), []
        for genes in wanted:
            layer, state = self._nearest_layer(state, len(wanted), genes)
            layers.append(layer)
        return tuple(layers)

    @cached_method
    def _nearest_layer(self, state: State, depth: int, genes: tuple[Any, ...]) -> Option:
        wanted = dict(zip(self.layers[state.layer].genes, genes, strict=True))
        structure, following = _nearest(self.alive(state, depth), wanted)
        return with_feed_forward(structure, wanted["mlp_ratio"], wanted["ffn_rank"]), following


def genes_of(choice: LayerChoice) -> Genes:
    """What of a choice may be in no network, though it is listed."""
    return Genes(choice.num_tokens, choice.reducer, choice.attention, choice.num_heads, choice.ffn_conv)


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
                if first.kind.shares and goal not in legal:
                    goal = 0.0
            value = goal if goal in legal else _fallback(gene, goal, legal)
            remaining = [option for option in remaining if getattr(option[0], gene) == value]
    return remaining[0]


def _fallback(gene: str, goal: Any, legal: Sequence[Any]) -> Any:
    if gene in ("num_tokens", "embed_dim"):
        lower = [value for value in legal if value <= goal]
        return max(lower) if lower else min(legal)
    if isinstance(legal[0], str) or legal[0] is None:
        return "dynamic" if "dynamic" in legal else legal[0]
    return min(legal, key=lambda value: (abs(value - goal), value))


def broken_rule(walk: LegalSequences, state: State, layer: LayerChoice) -> str:
    """The rule by which a choice is not legal in a state; empty when it is legal."""
    domain, kind = walk.layers[state.layer], layer.kind
    genes = ("num_tokens", "reducer", "attention", "num_heads", "mlp_ratio", "hallucination", "ffn_conv")
    wrong = [
        f"{gene} {value} is not one of {format_choices(getattr(domain, gene))}"
        for gene in genes
        if (value := getattr(layer, gene)) is not None and value not in getattr(domain, gene)
    ]
    if not wrong and (layer.mlp_ratio, layer.ffn_rank) not in walk.feed_forwards(state.layer):
        wrong.append(f"ffn_rank {layer.ffn_rank:g} is not one of {format_choices(domain.ffn_rank)}")
    asked = {hallucinated_heads(layer.num_heads, ratio) for ratio in domain.hallucination_ratio}
    ratios, taken_as_is = format_choices(domain.hallucination_ratio), kind.shares and not layer.num_hallucinated
    if kind.derives and not taken_as_is and layer.num_hallucinated not in asked:
        wrong.append(f"hallucination_ratio {layer.hallucination_ratio:g} is not one of {ratios} (C6)")
    if wrong:
        return "; ".join(wrong)
    if broken := walk.broken_reduction(state, layer.num_tokens, layer.reducer):
        return broken
    if layer.embed_dim not in (widths := domain.widths(state.width, layer.reducer)):
        more = f"one of {format_choices(widths)}" if widths else f"to be had behind {state.width} channels"
        return f"embed_dim {layer.embed_dim} is not {more} (C16)"
    on_grid = state.on_grid and layer.keeps_grid
    if layer.ffn_conv and not on_grid:
        return OFF_GRID
    own = (layer.attention, layer.num_heads, layer.num_hallucinated)
    if broken := walk.broken_attention(state, layer.num_tokens, on_grid, *own):
        return broken
    if taken_as_is and all(kind.derived(heads, state.hallucinated) for heads in asked):
        return f"hallucination_ratio {ratios} derives the shared maps anew, never takes them as they are (C6)"
    return ""


def why_empty(walk: LegalSequences, width: int, depth: int) -> str:
    """Why no sequence of so many layers is legal behind a width: the first layer that cannot be had, and the rule."""
    if walk.count(walk.begin(width), depth):
        return ""
    states = {walk.begin(width)}
    for layer in range(depth):
        following = {after for state in states for _, after in walk.options(state)}
        if not following:
            reasons = dict.fromkeys(reason for state in sorted(states) for reason in _reasons(walk, state))
            return f"layer {layer}: no choice is legal: " + "; ".join(list(reasons)[:MOST_REASONS])
        states = following
    return ""


def _reasons(walk: LegalSequences, state: State) -> Iterator[str]:
    domain = walk.layers[state.layer]
    mlp_ratio, ffn_rank = walk.feed_forwards(state.layer)[0]
    sizes: dict[str, Any] = {"mlp_ratio": mlp_ratio, "ffn_rank": ffn_rank, "ffn_conv": min(domain.ffn_conv)}
    for tokens, kind, heads in product(domain.num_tokens, domain.attention, domain.num_heads):
        for reducer in domain.reducer if tokens < state.arriving else (None,):
            genes: dict[str, Any] = {"num_tokens": tokens, "reducer": reducer, "attention": kind, "num_heads": heads}
            genes["embed_dim"] = max(domain.widths(state.width, reducer), default=0)
            try:
                choice = LayerChoice(**genes, **sizes)
            except ArchitectureError as error:
                yield error.message.removeprefix("layer choice: ")
            else:
                yield broken_rule(walk, state, choice)
