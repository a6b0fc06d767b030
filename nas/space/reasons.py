"""What of a legal search space deserves a second look, and what no machine like this one can hold."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from nas.arch import ATTENTION, VALUE_BYTES, LayerChoice, bytes_to_run
from nas.base import SearchSpaceError, unit_of
from nas.space.genome import Genome
from nas.space.space import SearchSpace
from nas.space.walk import LegalSequences, why_empty

FEW_TOKENS = 16  # fewer carry little of an image (C11)
COPIES = 4  # of every weight while the largest network is trained: itself, its gradient, and AdamW's two averages
RULE_OF = {"num_tokens": "C10 to C12", "reducer": "C10, C12", "num_heads": "C3", "ffn_rank": "C14"}


def check_memory(space: SearchSpace) -> None:
    """Raise a SearchSpaceError where this machine cannot hold the largest network, trained or run on one image."""
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    params, run = space.params_range()[1], bytes_to_run(space.largest(), space.backbone)
    needed = max(COPIES * VALUE_BYTES * params, run)
    if needed > here:
        factor, prefix = unit_of([needed])
        text = f"the largest network ({params:,} parameters) needs {needed / factor:,.0f} {prefix}B"
        text += f" of memory to be {'run on one image' if run == needed else 'trained'}; there are {here / factor:,.3g}"
        raise SearchSpaceError(space.name, [text], hint="lower image_size, embed_dim, num_heads, mlp_ratio or depth")


def notes(space: Genome) -> list[str]:
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
    unread = {c.attention for c in last if not c.kind.own_maps}
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


def _possible(walk: LegalSequences, depth: int) -> Iterator[set[LayerChoice]]:
    """The choices of each layer that some network of so many layers has."""
    states = {walk.start}
    for _ in range(depth):
        options = {option for state in states for option in walk.alive(state, depth)}
        yield {choice for choice, _ in options}
        states = {following for _, following in options}


def _dead(space: Genome, possible: list[set[LayerChoice]]) -> Iterator[str]:
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
                rule = ATTENTION[value].rule if gene == "attention" else RULE_OF[gene]
                yield f"{gene} {value} is in no network ({rule})"


def _layers(numbers: Iterable[int]) -> str:
    ordered = sorted(numbers)
    in_a_row = len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1
    spelled = f"{ordered[0]}-{ordered[-1]}" if in_a_row else ", ".join(map(str, ordered))
    return f"layer{'s' if len(ordered) > 1 else ''} {spelled}"
