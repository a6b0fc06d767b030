import copy
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from factories import backbone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_spaces import every_choice, listed, space, tiny

from nas import cost
from nas.architecture import Architecture, AttentionKind, Hallucination, LayerChoice, Reducer
from nas.errors import ArchitectureError, SearchSpaceError
from nas.space import Constraints, SearchSpace

SPACE = space()
BOUNDED = space(constraints=Constraints(max_macs=150_000, max_params=6_000))
FROM_ANYTHING = settings(
    max_examples=150, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@cache
def everything() -> tuple[Architecture, ...]:
    return tuple(dict.fromkeys(listed(tiny())))


def macs(architecture: Architecture) -> int:
    return cost.macs(architecture, backbone())


def params(architecture: Architecture) -> int:
    return cost.params(architecture, backbone())


def values_of(searched: SearchSpace) -> st.SearchStrategy:
    choices = {name: st.sampled_from(values) for name, values in searched.choices().items()}
    return st.fixed_dictionaries(choices)


# --- encode and decode --------------------------------------------------------------------------------------


@pytest.mark.parametrize("searched", [SPACE, BOUNDED], ids=["free", "bounded"])
def test_decode_inverts_encode(searched):
    rng = np.random.default_rng(0)
    for _ in range(1_000 if searched is SPACE else 200):
        architecture = searched.sample(rng)
        params = searched.encode(architecture)
        assert searched.decode(params) == architecture
        assert params.keys() == searched.choices().keys()
        assert all(type(value) in (int, float, str) for value in params.values())


def test_decode_inverts_encode_on_every_architecture():
    searched = tiny()
    assert all(searched.decode(searched.encode(a)) == a for a in everything())


@FROM_ANYTHING
@given(values_of(SPACE))
def test_anything_decodes_into_the_space(params):
    architecture = SPACE.decode(params)
    assert architecture in SPACE
    assert SPACE.decode(SPACE.encode(architecture)) == architecture


@FROM_ANYTHING
@given(values_of(BOUNDED))
def test_anything_decodes_into_the_constraints(params):
    architecture = BOUNDED.decode(params)
    assert architecture in BOUNDED
    assert macs(architecture) <= 150_000
    assert cost.params(architecture, BOUNDED.backbone) <= 6_000


def test_decode_keeps_what_is_legal():
    wanted = SPACE.encode(SPACE.largest()) | {"embed_dim": 16, "layers.01.mlp_ratio": 0.5, "depth": 3}
    architecture = SPACE.decode(wanted)
    assert (architecture.embed_dim, architecture.depth) == (16, 3)
    assert [layer.mlp_ratio for layer in architecture.layers] == [2.0, 0.5, 2.0]


PLAIN = {
    "num_tokens": 16,
    "attention": "dynamic",
    "hallucination_ratio": 0.0,
    "num_heads": 2,
    "mlp_ratio": 2.0,
}


@pytest.mark.parametrize(
    ("rule", "changes", "repaired"),
    [
        ("C1 no layer before", {0: {"attention": "shared"}}, {0: {"attention": AttentionKind.DYNAMIC}}),
        (
            "C1 static provider",
            {0: {"attention": "static"}, 1: {"attention": "shared"}},
            {0: {"attention": AttentionKind.STATIC}, 1: {"attention": AttentionKind.DYNAMIC}},
        ),
        (
            "C2 after pooling",
            {1: {"attention": "shared", "num_tokens": 9}},
            {
                1: {"attention": AttentionKind.DYNAMIC, "num_tokens": 9, "reducer": Reducer.POOL},
                2: {"num_tokens": 9, "reducer": None},
            },
        ),
        (
            "C3 heads",
            {1: {"attention": "shared", "num_heads": 3}, 2: {"attention": "shared", "num_heads": 1}},
            {
                1: {"attention": AttentionKind.SHARED, "num_heads": 2},
                2: {"attention": AttentionKind.SHARED, "num_heads": 2},
            },
        ),
        (
            "C6 one head",
            {0: {"num_heads": 1, "hallucination_ratio": 0.7, "hallucination": "mix_conv"}},
            {0: {"num_heads": 1, "hallucination_ratio": 0.0, "hallucination": None}},
        ),
        (
            "C6 whole heads",
            {0: {"num_heads": 3, "hallucination_ratio": 0.7, "hallucination": "mix_conv"}},
            {0: {"num_heads": 3, "hallucination_ratio": 2 / 3, "hallucination": Hallucination.MIX_CONV}},
        ),
        (
            "5.3 static hallucinates nothing",
            {0: {"attention": "static", "hallucination_ratio": 0.7}},
            {0: {"attention": AttentionKind.STATIC, "hallucination_ratio": 0.0}},
        ),
        (
            "C11 tokens grow",
            {0: {"num_tokens": 9}, 1: {"num_tokens": 16}, 2: {"num_tokens": 4}},
            {0: {"num_tokens": 9}, 1: {"num_tokens": 9, "reducer": None}, 2: {"num_tokens": 4}},
        ),
    ],
)
def test_decode_repairs_what_cannot_be(rule, changes, repaired):
    params = {name: values[0] for name, values in SPACE.choices().items()} | {"depth": 3, "embed_dim": 24}
    for i in range(3):
        genes = PLAIN | changes.get(i, {})
        params |= {f"layers.{i:02d}.{gene}": value for gene, value in genes.items()}
    architecture = SPACE.decode(params)
    assert architecture in SPACE
    for i, layer in enumerate(architecture.layers):
        expected = PLAIN | repaired.get(i, {})
        assert {gene: getattr(layer, gene) for gene in expected} == expected, rule


def test_decode_names_everything_that_is_not_of_the_space():
    with pytest.raises(ArchitectureError) as error:
        SPACE.decode(SPACE.encode(SPACE.smallest()) | {"embed_dim": 17, "layers.00.speed": 1, "depth": None})
    for words in ("embed_dim: 17 is not one of [16, 24]", "'layers.00.speed'", "depth: None"):
        assert words in error.value.message


def test_parameters_with_one_choice_may_be_left_out():
    searched = tiny(depth=(2,))
    params = searched.encode(searched.largest())
    del params["depth"], params["embed_dim"]
    assert searched.decode(params) == searched.largest()
    with pytest.raises(ArchitectureError, match="num_heads: None"):
        searched.decode({k: v for k, v in params.items() if k != "layers.00.num_heads"})


def test_encode_refuses_what_is_not_of_the_space():
    with pytest.raises(ArchitectureError, match="embed_dim 32 is not one of"):
        SPACE.encode(Architecture(embed_dim=32, layers=SPACE.largest().layers))


# --- membership, size, extremes -----------------------------------------------------------------------------


def test_size_equals_listing():
    assert tiny().size() == len(everything()) > 300
    assert tiny(depth=(2,)).size() == sum(a.depth == 2 for a in everything())
    assert tiny(embed_dim=(8, 16, 24)).size() == 3 * len(everything())
    digests = {architecture.digest for architecture in everything()}
    assert len(digests) == len(everything())


def test_size_of_a_large_space_is_exact_and_quick():
    domain = every_choice(attention=(AttentionKind.DYNAMIC,), num_tokens=(16,), hallucination_ratio=(0.0,))
    assert space(domain, depth=(24,), embed_dim=(24,)).size() == 6**24


def test_membership_is_that_of_the_listing():
    searched = tiny()
    assert all(a in searched for a in everything())
    members = set(everything())
    rng = np.random.default_rng(0)
    wider = space(every_choice(), depth=(1, 2), embed_dim=(8,))
    drawn = {wider.sample(rng) for _ in range(500)}
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
    assert "layer 0:" in SPACE.why_not(unpooled)[0]
    assert BOUNDED.why_not(SPACE.largest())[0].startswith("it breaks the constraints: at most 150,000 MACs")
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


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("bounded", ["macs", "params", "both"])
def test_extremes_under_constraints_equal_those_of_the_listing(share, bounded):
    low, high = tiny().macs_range()
    fewest, most = tiny().params_range()
    bounds = Constraints(
        max_macs=low + share * (high - low) if bounded != "params" else None,
        max_params=fewest + share * (most - fewest) if bounded != "macs" else None,
    )
    legal = [
        a
        for a in everything()
        if macs(a) <= (bounds.max_macs or high) and params(a) <= (bounds.max_params or most)
    ]
    if not legal:
        with pytest.raises(SearchSpaceError, match="no architecture meets"):
            tiny(constraints=bounds)
        return
    searched = tiny(constraints=bounds)
    assert macs(searched.smallest()) == min(map(macs, legal))
    assert searched.largest() in searched
    assert macs(searched.largest()) >= 0.95 * max(map(macs, legal))  # exactly the most is a knapsack problem
    one_gene_off = [
        searched.nearest(searched.encode(searched.largest()) | {name: value})
        for name, values in searched.choices().items()
        for value in values
    ]
    assert all(macs(a) <= macs(searched.largest()) for a in one_gene_off if a in searched)


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
    assert (
        f"no architecture meets at most 10 MACs and at most 20 parameters; "
        f"the least possible is {least:,} MACs, or {fewest:,} parameters"
    ) in error.value.message
    assert error.value.hint
    assert macs(tiny(constraints=Constraints(max_macs=least)).smallest()) == least
    assert params(tiny(constraints=Constraints(max_params=fewest)).smallest()) == fewest


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("layers.0.num_tokens: 25 is more than the 16 patches", {"num_tokens": (25,)}),
        ("layers.1.mlp_ratio: 0.3 x embed_dim 8 is not whole", {"mlp_ratio": (0.3,)}),
        ("layers.0.num_heads: needs at least one choice", {"num_heads": ()}),
        ("layers.0.num_heads: [2, 2] names a choice twice", {"num_heads": (2, 2)}),
        ("num_tokens must be a positive square number, got 10", {"num_tokens": (10,)}),
        ("hallucination_ratio must be in [0, 1), got 1", {"hallucination_ratio": (1,)}),
        ("layers: no sequence of choices is legal", {"attention": (AttentionKind.SHARED,)}),
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
