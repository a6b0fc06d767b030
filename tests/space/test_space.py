import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, permutations

import numpy as np
import pytest
from factories import backbone
from small_spaces import chains, every_choice, listed, only_half, space, tiny

from nas.arch import cost, memory
from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.operator import Rules
from nas.base.errors import SearchSpaceError
from nas.space.constraints import UNITS, Constraints
from nas.space.designs import DESIGNS
from nas.space.space import SearchSpace

SPACE = space()
BOUNDED = space(constraints=Constraints(max_macs=120_000, max_params=6_000))


@cache
def everything() -> tuple[Architecture, ...]:
    return tuple(dict.fromkeys(listed(tiny())))


def macs(architecture: Architecture) -> int:
    return cost.macs(architecture, backbone())


def params(architecture: Architecture) -> int:
    return cost.params(architecture, backbone())


# --- membership, size, extremes -----------------------------------------------------------------------------


def test_size_equals_listing():
    assert tiny().size() == len(everything()) > 300
    assert tiny(depth=(2,)).size() == sum(a.depth == 2 for a in everything())
    assert tiny(embed_dim=(8, 16, 24)).size() == 3 * len(everything())
    digests = {architecture.digest for architecture in everything()}
    assert len(digests) == len(everything())


def test_size_of_a_large_space_is_exact_and_quick():
    domain = every_choice(attention=("dynamic",), num_tokens=(16,), hallucination_ratio=(0.0,))
    # 3 numbers of heads; hidden width 0.5 with 2 different ranks (C14), 2.0 with 3
    assert space(domain, depth=(24,), embed_dim=(24,)).size() == (3 * 5) ** 24


RULES = [
    Rules(max_shared=0),
    Rules(max_shared=1),
    Rules(max_shared=3),
    Rules(max_reductions=0),
    Rules(max_reductions=1),
    Rules(static_after_reduction=True),
    Rules(),
]


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("class_token", [True, False], ids=["class_token", "mean_pooled"])
def test_size_and_extremes_equal_those_of_the_listing_under_every_rule(rules, class_token):
    searched = chains(rules=rules, backbone=backbone(class_token=class_token))
    members = list(listed(searched))
    assert searched.size() == len(members) == len({a.digest for a in members}) > 100
    costs = [cost.macs(a, searched.backbone) for a in members]
    parameters = [cost.params(a, searched.backbone) for a in members]
    assert searched.macs_range() == (min(costs), max(costs))
    assert searched.params_range() == (min(parameters), max(parameters))


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_rules_decide_membership(rules):
    searched, free = (
        chains(rules=rules),
        chains(rules=Rules(max_shared=3, max_reductions=3, static_after_reduction=True)),
    )
    members = set(listed(searched))
    assert {a for a in listed(free) if a in searched} == members < set(listed(free))


def test_size_where_maps_are_never_shared_as_they_are():
    members = set(listed(only_half()))
    assert only_half().size() == len(members)
    shared = [la for a in members for la in a.layers if la.attention == "shared"]
    assert {(la.num_heads, la.num_hallucinated) for la in shared} == {(1, 0), (2, 1)}


def test_membership_is_that_of_the_listing():
    searched = tiny()
    assert all(a in searched for a in everything())
    members = set(everything())
    rng = np.random.default_rng(0)
    wider = space(every_choice(mlp_ratio=(1.0,)), depth=(1, 2), embed_dim=(8,))
    drawn = {wider.sample(rng) for _ in range(2_000)}
    assert {a for a in drawn if a in searched} == drawn & members
    assert 0 < len(drawn & members) < len(drawn)


def test_why_not_gives_the_reasons():
    layer = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=2)
    wrong = Architecture(embed_dim=40, layers=(layer,) * 9)
    assert SPACE.why_not(wrong) == [
        "embed_dim 40 is not one of [16, 24]",
        "depth 9 is not one of [2, 3, 4]",
    ]
    unpooled = Architecture(embed_dim=24, layers=(replace(layer, num_tokens=4),) * 2)
    assert SPACE.why_not(unpooled) == ["layer 0: a reducer is present exactly where num_tokens falls"]
    assert BOUNDED.why_not(SPACE.largest())[0].startswith("it breaks the constraints: at most 120,000 MACs")
    assert "plain" not in SPACE
    assert SPACE.why_not(SPACE.largest()) == []


def test_extremes_equal_those_of_the_listing():
    searched = tiny()
    everywhere = [macs(a) for a in everything()]
    assert searched.macs_range() == (min(everywhere), max(everywhere))
    assert (macs(searched.smallest()), macs(searched.largest())) == searched.macs_range()
    parameters = [params(a) for a in everything()]
    assert searched.params_range() == (min(parameters), max(parameters))
    assert {searched.smallest(), searched.largest()} <= set(everything())


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


def bounds_at(
    make: Callable[[], SearchSpace], keys: Sequence[str], shares: Sequence[float]
) -> dict[str, int]:
    """Bounds at a share of the way from the least to the most."""
    bounds = {}
    for key, share in zip(keys, shares, strict=True):
        values = [amount[key] for _, amount in priced(make)]
        bounds[key] = math.floor(min(values) + share * (max(values) - min(values)))
    return bounds


@pytest.mark.parametrize("make", [tiny, chains, only_half])
@pytest.mark.parametrize("keys", EVERY_ORDER, ids="-".join)
def test_bounds_together_are_refused_exactly_where_nothing_keeps_them(make, keys):
    """The last bound is the least that is possible within the others, and one less."""
    rng = np.random.default_rng(0)
    *others, last = keys
    for _ in range(4):
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


@pytest.mark.parametrize("make", [tiny, chains, only_half])
@pytest.mark.parametrize("keys", EVERY_MIX, ids="-".join)
def test_largest_is_within_the_bounds_and_no_change_of_one_gene_makes_it_larger(make, keys):
    for share in (0.0, 0.05, 0.3, 0.7):
        bounds = bounds_at(make, keys, [share] * len(keys))
        legal = [a for a, amount in priced(make) if all(amount[key] <= bounds[key] for key in keys)]
        if not legal:
            continue
        searched = replace(make(), constraints=Constraints(**bounds))
        assert searched.largest() in legal
        most = max(map(macs, legal))
        assert macs(searched.largest()) >= 0.9 * most  # exactly the most is a knapsack problem
        one_gene_off = [
            searched.nearest(searched.encode(searched.largest()) | {name: value})
            for name, values in searched.choices().items()
            for value in values
        ]
        assert all(macs(a) <= macs(searched.largest()) for a in one_gene_off if a in searched)


@pytest.mark.parametrize("make", [tiny, chains, only_half])
def test_range_of_memory_is_that_of_the_listing(make):
    needed = [amount["max_memory"] for _, amount in priced(make)]
    assert make().memory_range() == (min(needed), max(needed))


@pytest.mark.parametrize("class_token", [True, False], ids=["class_token", "mean_pooled"])
def test_range_of_memory_is_that_of_the_listing_under_other_rules(class_token):
    rules = Rules(max_shared=3, static_after_reduction=True)
    searched = chains(rules=rules, backbone=backbone(class_token=class_token), depth=(2, 4))
    needed = [memory.bytes_to_run(a, searched.backbone) for a in listed(searched)]
    assert searched.memory_range() == (min(needed), max(needed))


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


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9])
def test_largest_comes_near_the_bound_on_macs(share):
    low, high = SPACE.macs_range()
    bound = low + share * (high - low)
    searched = space(constraints=Constraints(max_macs=bound))
    assert 0.99 * bound <= macs(searched.largest()) <= bound


def test_infeasible_constraints_name_the_least_possible():
    least, fewest = min(map(macs, everything())), min(map(params, everything()))
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


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("layers.0.num_tokens: 25 is more than the 16 patches", {"num_tokens": (25,)}),
        ("layers.1.mlp_ratio: 0.3 x embed_dim 8 is not whole", {"mlp_ratio": (0.3,)}),
        ("layers.0.num_heads: needs at least one choice", {"num_heads": ()}),
        ("layers.0.num_heads: [2, 2] names a choice twice", {"num_heads": (2, 2)}),
        (
            "layers: layer 0: no choice is legal: pool leaves a square number of tokens, got 10 (C10)",
            {"num_tokens": (10,), "reducer": ("pool",)},
        ),
        ("layers.0.num_tokens: num_tokens must be at least 1, got 0", {"num_tokens": (16, 0)}),
        (
            "layers.1.hallucination_ratio: hallucination_ratio must be in [0, 1), got 1",
            {"hallucination_ratio": (1,)},
        ),
        ("layers.0.ffn_rank: ffn_rank must be above 0 and at most 1, got 1.5", {"ffn_rank": (1.5,)}),
        ("layers.1.ffn_rank: 0.3 x embed_dim 8 is not whole", {"ffn_rank": (0.3,)}),
        ("layers.0.num_heads: num_heads must be at least 1, got 0", {"num_heads": (0,)}),
        (
            "layers: layer 0: no choice is legal: shared needs a dynamic",
            {"attention": ("shared",)},
        ),
    ],
)
def test_contradictory_domain_is_refused(message, changes):
    with pytest.raises(SearchSpaceError) as error:
        space(every_choice(**changes), embed_dim=(8,), depth=(2,))
    assert message in error.value.message


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("embed_dim: needs one or more different positive numbers, got []", {"embed_dim": ()}),
        ("depth: needs one or more different positive numbers, got [2, 2]", {"depth": (2, 2)}),
        ("layers: 1 domains for a greatest depth of 2", {"layers": (every_choice(),), "depth": (2,)}),
    ],
)
def test_contradictory_sizes_are_refused(message, changes):
    with pytest.raises(SearchSpaceError) as error:
        space(**changes)
    assert message in error.value.message


# --- identity -----------------------------------------------------------------------------------------------


def test_spaces_and_draws_are_the_same_in_every_process():
    code = (
        "import numpy as np; from small_spaces import space; s = space(); rng = np.random.default_rng(5); "
        "print(s.digest, *(s.sample(rng).digest for _ in range(20)), s.sample_stratified(rng).digest, "
        "s.mutate(s.smallest(), rng).digest)"
    )
    env = {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))}
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=env | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "77")
    }
    assert len(printed) == 1
    assert printed.pop().split()[0] == SPACE.digest


def test_digest_tells_spaces_apart():
    others = [
        tiny(),
        BOUNDED,
        SPACE.with_num_classes(7),
        space(backbone=backbone(class_token=False)),
        space(depth=(2, 4)),
    ]
    assert len({SPACE.digest, *(other.digest for other in others)}) == 6
    assert space().digest == SPACE.digest


def test_seeds_are_kept_but_do_not_make_another_space():
    searched = space(seeds=("psvit", "deit"))
    assert searched.digest == SPACE.digest
    assert searched.to_dict() == SPACE.to_dict()
    assert replace(searched, name="b").seeds == copy.copy(searched).seeds == ("psvit", "deit")
    assert searched.with_num_classes(7).seeds == ("psvit", "deit")
    assert SPACE.seeds == DESIGNS
    with pytest.raises(SearchSpaceError, match="seeds: 'vit' is not one of deit, psvit"):
        space(seeds=("vit",))


def test_a_bound_on_memory_makes_another_space_and_none_keeps_the_digest():
    bounded = space(constraints=Constraints(max_memory=1e6))
    assert bounded.digest != SPACE.digest
    assert bounded.to_dict()["constraints"]["max_memory"] == 1e6
    assert "max_memory" not in SPACE.to_dict()["constraints"]  # older runs know their space by its digest


def test_with_num_classes_changes_the_classifier_alone():
    searched = space(num_classes_from_data=True)
    known = searched.with_num_classes(7)
    assert (known.backbone.num_classes, known.num_classes_from_data) == (7, False)
    assert known.layers == searched.layers
    assert known.size() == searched.size()


def test_a_copied_space_is_equal_and_leaves_what_was_found_behind():
    searched = space()
    searched.sample_stratified(np.random.default_rng(0))
    copied = copy.copy(searched)  # as when it is sent to another process
    assert copied == searched
    assert copied.__dict__.keys() < searched.__dict__.keys()
    assert copied.sample(np.random.default_rng(1)) == searched.sample(np.random.default_rng(1))
