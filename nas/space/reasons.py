"""What of a legal search space deserves a second look, what no machine can hold, and why one is no part of another."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from itertools import chain, product
from typing import Any

from nas.arch import ATTENTION, VALUE_BYTES, bytes_to_run, hallucinated_heads
from nas.base import SearchSpaceError, format_choices, plural, unit_of
from nas.space.domain import GENES, LayerDomain, feed_forwards
from nas.space.genome import Genome
from nas.space.space import SearchSpace
from nas.space.walk import Genes, State, genes_of, why_empty

FEW_TOKENS = 16  # fewer carry little of an image (C11)
COPIES = 4  # of every weight while the largest network is trained: itself, its gradient, and AdamW's two averages
RULE_OF = {
    "num_tokens": "C10 to C12", "reducer": "C10, C12, C19", "num_heads": "C3", "ffn_rank": "C14", "ffn_conv": "C19",
}  # fmt: skip


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
    possible, last, empty = _possible(space)
    few = {i for i, choices in enumerate(possible) if any(one.num_tokens < FEW_TOKENS for one in choices)}
    early = {i for i, choices in enumerate(possible[:2]) if any(one.reducer for one in choices)}
    unread = {one.attention for one in last if not ATTENTION[one.attention].own_maps}
    found = [
        (few, f"fewer than {FEW_TOKENS} tokens in {_layers(few)} (prior C11)"),
        (early, f"tokens may fall in {_layers(early)}, before layer 2 (prior C12)"),
        ({one.reducer for one in last if one.reducer}, "tokens may fall in the last layer (prior C12)"),
        (unread, f"the last layer may be {' or '.join(sorted(unread))} (prior C13)"),
    ]
    return [
        *(
            f"no network has {plural(n, 'layer')}: {text}"
            for n in space.depth
            if n in empty and (text := why_empty(space.walk, max(space.embed_dim), n))
        ),
        *(text for concerned, text in found if concerned),
        *_dead(space, possible),
    ]


def _possible(space: Genome) -> tuple[list[set[Genes]], set[Genes], set[int]]:
    """The choices of each layer that some network has; those of last layers; the depths that no network has.

    What does not share is the same behind whatever provider, so it is looked at once for all of them.
    """
    possible: list[set[Genes]] = []
    walk, depths = space.walk, frozenset(space.depth)
    last, empty, states = set[Genes](), set(depths), {walk.begin(width) for width in space.embed_dim}
    for layer in range(max(depths)):
        had, following = set[Genes](), set[State]()
        options = ((behind, (genes_of(choice),)) for state in states for choice, behind in walk.sharing(state))
        free = (
            option for state in {s.without_sharing() for s in states} for option in walk.unshared_genes(state).items()
        )
        for behind, genes in chain(options, free):
            following.add(behind)
            if walk.total(behind, depths):
                had.update(genes)
            if layer + 1 in depths:
                last.update(genes)
        if following:
            empty.discard(layer + 1)
        possible.append(had)
        states = following
    return possible, last, empty


def _dead(space: Genome, possible: list[set[Genes]]) -> Iterator[str]:
    """The values of genes that are listed, but are in no network."""
    for gene in (*Genes._fields, "ffn_rank"):
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
                yield f"{gene} {str(value).lower()} is in no network ({rule})"


def why_not_within(space: Genome, whole: Genome) -> list[str]:
    """Every choice of a space that another one does not have, a line each; empty where it is a part of the other.

    Names, hard bounds and rules do not count, nor do choices that change no network, such as reducers where tokens
    cannot fall.
    """
    ours, theirs = asdict(space.backbone), asdict(whole.backbone)
    found = [
        f"backbone.{key}: {value}, there {theirs[key]}"
        for key, value in ours.items()
        if key != "timm" and value != theirs[key]
    ]
    for gene in ("embed_dim", "stem", "depth"):
        chosen, there = getattr(space, gene), getattr(whole, gene)
        if more := [value for value in chosen if value not in there]:
            found.append(f"{gene}: {format_choices(more)}, there {format_choices(there)}")
    lacking: dict[str, list[int]] = {}
    arriving = space.backbone.num_patches
    for i, (domain, there) in enumerate(zip(space.layers, whole.layers, strict=False)):
        if not (reachable := [n for n in domain.num_tokens if n <= arriving]):
            break  # no network has so many layers
        for text in _lacking(domain, there, arriving):
            lacking.setdefault(text, []).append(i)
        arriving = max(reachable)
    return found + [f"{_layers(layers)}: {text}" for text, layers in lacking.items()]


def _lacking(domain: LayerDomain, whole: LayerDomain, arriving: int) -> Iterator[str]:
    """What a layer may have, where so many tokens arrive at most, that another domain does not have."""
    without = set[str]()  # genes whose values change no network
    if min(domain.num_tokens) >= arriving:
        without |= {"reducer", "embed_dim"}
    if not any(derived for _, derived in _derived(domain)):
        without.add("hallucination")
    for gene in GENES:
        there = getattr(whole, gene)
        more = [value for value in getattr(domain, gene) if value not in there]
        if gene == "hallucination_ratio":
            made = [_derived(replace(domain, num_heads=whole.num_heads, hallucination_ratio=(r,))) for r in more]
            more = [ratio for ratio, heads in zip(more, made, strict=True) if not heads <= _derived(whole)]
        elif gene == "ffn_rank":
            pairs = [pair for pair in feed_forwards(domain) if pair[0] in whole.mlp_ratio]
            more = list(dict.fromkeys(pair[1] for pair in pairs if pair not in feed_forwards(whole)))
        if more and gene not in without:
            yield f"{gene} {format_choices(more)}, there {format_choices(there)}"


def _derived(domain: LayerDomain) -> set[tuple[int, int]]:
    """(heads, derived heads) of the layer's attention, where it is of a kind that may derive any."""
    if not any(ATTENTION[kind].derives for kind in domain.attention):
        return set()
    return {
        (heads, hallucinated_heads(heads, ratio))
        for heads, ratio in product(domain.num_heads, domain.hallucination_ratio)
    }


def _layers(numbers: Iterable[int]) -> str:
    ordered = sorted(numbers)
    in_a_row = len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1
    spelled = f"{ordered[0]}-{ordered[-1]}" if in_a_row else ", ".join(map(str, ordered))
    return f"layer{'s' if len(ordered) > 1 else ''} {spelled}"
