"""Hard bounds: the least within them, the largest, and the proof that nothing keeps them, against whole listings."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, permutations

import numpy as np
import pytest
from factories import backbone
from small_spaces import chains, growing, listed, only_half, space, stems, tiny

from nas.arch import cost, memory
from nas.arch.architecture import Architecture
from nas.arch.operator import Rules
from nas.base.errors import SearchSpaceError
from nas.space.constraints import UNITS, Constraints
from nas.space.space import SearchSpace

SPACE = space()


def macs(architecture: Architecture) -> int:
    return cost.macs(architecture, backbone())


def params(architecture: Architecture) -> int:
    return cost.params(architecture, backbone())


KEYS = ("max_macs", "max_params", "max_memory")

EVERY_MIX = [keys for n in (1, 2, 3) for keys in combinations(KEYS, n)]

EVERY_ORDER = [keys for n in (1, 2, 3) for keys in permutations(KEYS, n)]


def amounts(architecture: Architecture) -> dict[str, int]:
    return {
        "max_macs": macs(architecture),
        "max_params": params(architecture),
        "max_memory": memory.bytes_to_run(architecture, backbone()),
    }


@cache
def priced(make: Callable[[], SearchSpace]) -> tuple[tuple[Architecture, dict[str, int]], ...]:
    return tuple((a, amounts(a)) for a in dict.fromkeys(listed(make())))


def bounds_at(make: Callable[[], SearchSpace], keys: Sequence[str], shares: Sequence[float]) -> dict[str, int]:
    """Bounds at a share of the way from the least to the most."""
    bounds = {}
    for key, share in zip(keys, shares, strict=True):
        values = [amount[key] for _, amount in priced(make)]
        bounds[key] = math.floor(min(values) + share * (max(values) - min(values)))
    return bounds


@pytest.mark.parametrize("make", [tiny, chains, only_half, stems, growing])
@pytest.mark.parametrize("keys", EVERY_ORDER, ids="-".join)
def test_bounds_together_are_refused_exactly_where_nothing_keeps_them(make, keys):
    """The last bound is the least that is possible within the others, and one less."""
    rng = np.random.default_rng(0)
    *others, last = keys
    for _ in range(3):
        bounds = bounds_at(make, others, (rng.random(len(others)) ** 4).tolist())
        kept = [amount for _, amount in priced(make) if all(amount[key] <= bounds[key] for key in others)]
        if not kept:
            continue
        least = min(amount[last] for amount in kept)
        found = replace(make(), constraints=Constraints(**bounds, **{last: least})).smallest()
        fewest = min(amount["max_macs"] for amount in kept if amount[last] == least)
        assert (macs(found), amounts(found)[last]) == (fewest, least)
        with pytest.raises(SearchSpaceError) as error:
            replace(make(), constraints=Constraints(**bounds, **{last: least - 1}))
        alone, _, within = error.value.message.partition("within the other bounds it is")
        assert f"{min(amount[last] for _, amount in priced(make)):,} {UNITS[last]}" in alone
        if others:
            assert f"{least:,} {UNITS[last]}" in within


RARE = [pytest.param(share, marks=pytest.mark.slow) for share in (0.0, 0.05, 0.7)]


@pytest.mark.parametrize("make", [tiny, chains, only_half, stems, growing])
@pytest.mark.parametrize("keys", EVERY_MIX, ids="-".join)
@pytest.mark.parametrize("share", [0.3, *RARE])
def test_largest_is_within_the_bounds_and_no_change_of_one_gene_makes_it_larger(make, keys, share):
    bounds = bounds_at(make, keys, [share] * len(keys))
    legal = [a for a, amount in priced(make) if all(amount[key] <= bounds[key] for key in keys)]
    if not legal:
        return
    searched = replace(make(), constraints=Constraints(**bounds))
    largest = searched.largest()
    assert largest in legal
    near = (
        0.8 if make in (growing, stems) else 0.9
    )  # exactly the most is a knapsack problem, of few and large parts there
    assert macs(largest) >= near * max(map(macs, legal))
    params = searched.encode(largest)
    one_gene_off = {
        searched.nearest(params | {name: value}) for name, values in searched.choices().items() for value in values
    }
    assert all(macs(a) <= macs(largest) for a in one_gene_off if a in searched)


@pytest.mark.parametrize("make", [tiny, chains, only_half, stems, growing])
def test_range_of_memory_is_that_of_the_listing(make):
    needed = [amount["max_memory"] for _, amount in priced(make)]
    assert make().memory_range() == (min(needed), max(needed))


@pytest.mark.parametrize("class_token", [True, False], ids=["class_token", "mean_pooled"])
def test_range_of_memory_is_that_of_the_listing_under_other_rules(class_token):
    rules = Rules(max_shared=3, static_after_reduction=True)
    searched = chains(rules=rules, backbone=backbone(class_token=class_token), depth=(2, 4))
    needed = [memory.bytes_to_run(a, searched.backbone) for a in listed(searched)]
    assert searched.memory_range() == (min(needed), max(needed))


def test_range_of_memory_and_largest_are_those_of_the_listing_with_convolutions_everywhere():
    searched = stems()
    searched = replace(searched, layers=tuple(replace(domain, ffn_conv=(True,)) for domain in searched.layers))
    needed = [memory.bytes_to_run(a, searched.backbone) for a in listed(searched)]
    assert searched.memory_range() == (min(needed), max(needed))
    macs = [cost.macs(a, searched.backbone) for a in listed(searched)]
    assert searched.macs_range() == (min(macs), max(macs))


@pytest.mark.slow
def test_bounds_hold_for_what_is_drawn_decoded_and_mutated():
    low, high = SPACE.memory_range()
    bound = low + 0.3 * (high - low)
    searched = space(constraints=Constraints(max_memory=bound))
    rng = np.random.default_rng(0)
    drawn = [draw(rng) for draw in (searched.sample, searched.sample_stratified) for _ in range(20)]
    drawn += [searched.mutate(a, rng) for a in drawn[:10]]
    drawn += [searched.decode(SPACE.encode(SPACE.sample(rng))) for _ in range(20)]
    assert all(a in searched and memory.bytes_to_run(a, backbone()) <= bound for a in drawn)
    assert len(set(drawn)) > 40
    assert searched.why_not(SPACE.largest()) == [f"it breaks the constraints: at most {bound:,.0f} bytes"]


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_largest_comes_near_the_bound_on_macs(share):
    low, high = SPACE.macs_range()
    bound = low + share * (high - low)
    searched = space(constraints=Constraints(max_macs=bound))
    assert 0.99 * bound <= macs(searched.largest()) <= bound


def test_infeasible_constraints_name_the_least_possible():
    least, fewest = (min(amount[key] for _, amount in priced(tiny)) for key in ("max_macs", "max_params"))
    with pytest.raises(SearchSpaceError) as error:
        tiny(constraints=Constraints(max_macs=10, max_params=20))
    assert error.value.problems == (
        "constraints: no architecture meets at most 10 MACs and at most 20 parameters; "
        f"the least possible is {least:,} MACs and {fewest:,} parameters, each without the other bounds",
    )
    assert error.value.hint
    assert macs(tiny(constraints=Constraints(max_macs=least)).smallest()) == least
    assert params(tiny(constraints=Constraints(max_params=fewest)).smallest()) == fewest


@pytest.mark.parametrize("key", KEYS)
def test_the_least_possible_is_possible_and_one_less_is_not(key):
    least = min(amount[key] for _, amount in priced(tiny))
    assert amounts(tiny(constraints=Constraints(**{key: least})).smallest())[key] == least
    with pytest.raises(SearchSpaceError, match=f"the least possible is {least:,} "):
        tiny(constraints=Constraints(**{key: least - 1}))
