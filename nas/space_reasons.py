"""Why a choice is not legal, why a space is empty, and what of a legal space deserves a second look."""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

from nas.architecture import AttentionKind, LayerChoice, Reducer, hallucinated_heads
from nas.errors import ArchitectureError

if TYPE_CHECKING:
    from nas.space import SearchSpace
    from nas.space_walk import State, Walk

FEW_TOKENS = 16  # fewer carry little of an image (C11)
MOST_REASONS = 3  # for which a message says that a space is empty
RULE_OF = {
    "shared": "C1 to C5",
    "static": "C7",
    "linear": "C8",
    "num_tokens": "C10 to C12",
    "reducer": "C10, C12",
    "num_heads": "C3",
    "ffn_rank": "C14",
}


def broken_rule(walk: "Walk", state: "State", layer: LayerChoice) -> str:
    """The rule by which a choice is not legal in a state; empty when it is legal."""
    domain, rules = walk.layers[state.layer], walk.rules
    kind, tokens, arriving = layer.attention, layer.num_tokens, state.arriving
    genes = ("num_tokens", "reducer", "attention", "num_heads", "mlp_ratio", "hallucination")
    wrong = [
        f"{gene} {value} is not one of {_words(getattr(domain, gene))}"
        for gene in genes
        if (value := getattr(layer, gene)) is not None and value not in getattr(domain, gene)
    ]
    if not wrong and (layer.mlp_ratio, layer.ffn_rank) not in walk.feed_forwards(state.layer):
        wrong.append(f"ffn_rank {layer.ffn_rank:g} is not one of {_words(domain.ffn_rank)}")
    derived = {hallucinated_heads(layer.num_heads, ratio) for ratio in domain.hallucination_ratio}
    may_derive = kind is AttentionKind.DYNAMIC or layer.num_hallucinated > 0
    if may_derive and layer.num_hallucinated not in derived:
        ratios = _words(domain.hallucination_ratio)
        wrong.append(f"hallucination_ratio {layer.hallucination_ratio:g} is not one of {ratios} (C6)")
    if wrong:
        return "; ".join(wrong)
    if tokens > arriving:
        return f"num_tokens grows from {arriving} to {tokens} (C11)"
    if (layer.reducer is not None) != (tokens < arriving):
        return "a reducer is present exactly where num_tokens falls"
    if tokens < arriving and not state.reductions_left:
        return f"tokens are reduced more than {rules.max_reductions} times (C12)"
    if layer.reducer in (Reducer.POOL, Reducer.CONV_POOL) and not state.on_grid:
        return f"{layer.reducer} needs the grid that an earlier glad dissolved (C10)"
    if kind is AttentionKind.SHARED:
        return _nothing_shared(walk, state, layer)
    on_grid = state.on_grid and layer.reducer is not Reducer.GLAD
    if kind is AttentionKind.STATIC and not walk.may_be_static(tokens, on_grid):
        where = "a glad" if not on_grid else "a reduction; allow it by rules.static_after_reduction"
        return f"static behind {where} (C7)"
    if kind is AttentionKind.LINEAR and not walk.linear_pays(tokens):
        count = tokens + walk.backbone.num_prefix_tokens
        return f"linear attention pays from {walk.backbone.head_dim + 5} tokens on, here are {count} (C8)"
    return ""


def _nothing_shared(walk: "Walk", state: "State", layer: LayerChoice) -> str:
    most = walk.rules.max_shared
    if layer.num_tokens < state.arriving:
        return f"tokens fall from {state.arriving} to {layer.num_tokens}, so no maps can be shared (C2)"
    if not most:
        return "shared needs a rules.max_shared of at least 1 (C4)"
    if not state.shares_left:
        text = f"shared needs a dynamic layer before it, with at most {most - 1} shared ones in between"
        return f"{text} (C1, C4, C5)"
    if layer.num_heads != state.heads:
        return f"{layer.num_heads} heads share the maps of {state.heads} (C3)"
    if not layer.num_hallucinated and state.hallucinated:
        ratios = _words(walk.layers[state.layer].hallucination_ratio)
        return f"hallucination_ratio {ratios} derives the shared maps anew, never takes them as they are (C6)"
    return ""


def why_empty(walk: "Walk", depth: int) -> str:
    """Why no sequence of so many layers is legal: the first layer that cannot be had, and what forbids it."""
    states = {walk.start}
    for layer in range(depth):
        following = {after for state in states for _, after in walk.options(state)}
        if not following:
            reasons = dict.fromkeys(reason for state in sorted(states) for reason in _reasons(walk, state))
            return f"layer {layer}: no choice is legal: " + "; ".join(list(reasons)[:MOST_REASONS])
        states = following
    return ""


def _reasons(walk: "Walk", state: "State") -> Iterator[str]:
    domain = walk.layers[state.layer]
    mlp_ratio, ffn_rank = walk.feed_forwards(state.layer)[0]
    for tokens, kind, heads in product(domain.num_tokens, domain.attention, domain.num_heads):
        for reducer in domain.reducer if tokens < state.arriving else (None,):
            try:
                choice = LayerChoice(
                    num_tokens=tokens,
                    reducer=reducer,
                    attention=kind,
                    num_heads=heads,
                    ffn_rank=ffn_rank,
                    mlp_ratio=mlp_ratio,
                )
            except ArchitectureError as error:
                yield error.message.removeprefix("layer choice: ")
            else:
                yield broken_rule(walk, state, choice)


def notes(space: "SearchSpace") -> list[str]:
    """What a space leaves open that priors would close (C11, C12, C13), and choices that no network has."""
    possible: list[set[LayerChoice]] = [set() for _ in space.layers]
    last: set[LayerChoice] = set()
    for depth in space.depth:
        for i, choices in enumerate(_possible(space.walk, depth)):
            possible[i] |= choices
            if i == depth - 1:
                last |= choices
    few = {i for i, choices in enumerate(possible) if any(c.num_tokens < FEW_TOKENS for c in choices)}
    early = {i for i, choices in enumerate(possible[:2]) if any(c.reducer for c in choices)}
    unread = {c.attention for c in last} & {AttentionKind.STATIC, AttentionKind.SHARED}
    found = [
        (few, f"fewer than {FEW_TOKENS} tokens in {_layers(few)} (prior C11)"),
        (early, f"tokens may fall in {_layers(early)}, before layer 2 (prior C12)"),
        ({c for c in last if c.reducer}, "tokens may fall in the last layer (prior C12)"),
        (unread, f"the last layer may be {' or '.join(sorted(unread))} (prior C13)"),
    ]
    return [
        *(f"no network has {n} layers: {text}" for n in space.depth if (text := why_empty(space.walk, n))),
        *(text for concerned, text in found if concerned),
        *_dead(space, possible),
    ]


def _possible(walk: "Walk", depth: int) -> Iterator[set[LayerChoice]]:
    """The choices of each layer that some network of so many layers has."""
    states = {walk.start}
    for _ in range(depth):
        options = {option for state in states for option in walk.alive(state, depth)}
        yield {choice for choice, _ in options}
        states = {following for _, following in options}


def _dead(space: "SearchSpace", possible: list[set[LayerChoice]]) -> Iterator[str]:
    """The values of genes that are listed, but are in no network."""
    for gene in ("num_tokens", "reducer", "attention", "num_heads", "ffn_rank"):
        listed, had = dict[Any, None](), set[Any]()
        for i, domain in enumerate(space.layers):
            values = getattr(domain, gene)
            listed |= dict.fromkeys(values if gene != "reducer" or len(values) > 1 else ())
            if gene == "ffn_rank":
                had |= {rank for _, rank in space.walk.feed_forwards(i)} | {1.0}
            else:
                had |= {getattr(choice, gene) for choice in possible[i]}
        for value in listed:
            if value not in had:
                yield f"{gene} {value} is in no network ({RULE_OF[value if gene == 'attention' else gene]})"


def _layers(numbers: Iterable[int]) -> str:
    ordered = sorted(numbers)
    spelled = ", ".join(map(str, ordered))
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        spelled = f"{ordered[0]}-{ordered[-1]}"
    return f"layer{'s' if len(ordered) > 1 else ''} {spelled}"


def _words(values: Iterable[Any]) -> str:
    return f"[{', '.join(str(value) for value in values)}]"
