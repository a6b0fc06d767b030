"""Every rule of METHODS, section b, C1 to C14: who enforces it, and in which words.

An `Architecture` refuses what no network can be, a space what its rules forbid, a file what can never be drawn;
`check` notes what is legal but against a prior. What decode repairs is tested with the space.
"""

import pytest

from nas.arch.architecture import Architecture, LayerChoice
from nas.base.errors import ArchitectureError, SearchSpaceError
from nas.space.reasons import notes
from nas.space.space import SearchSpace, parse_space

FIXED = """\
name: ruled
backbone: {image_size: 16, patch_size: 4, num_classes: 10, head_dim: 8}
embed_dim: 24
depth: 4
"""
EVERYTHING = """\
layers:
  num_tokens: [16, 9, 6, 4]
  reducer: [pool, conv_pool, glad]
  attention: [dynamic, static, shared, linear]
  hallucination_ratio: [0, 0.5]
  hallucination: [copy, mix, mix_conv]
  num_heads: [1, 2, 3]
  ffn_rank: [0.25, 0.5, 1]
  mlp_ratio: [1, 2]
"""
SHARED, STATIC, LINEAR = ({"attention": kind} for kind in ("shared", "static", "linear"))
HALF = {"hallucination_ratio": 0.5}


def layer(**changes) -> LayerChoice:
    return LayerChoice(**{"num_tokens": 16, "num_heads": 2, "mlp_ratio": 2.0, **changes})


def fewer(num_tokens: int, reducer: str = "glad", **changes) -> LayerChoice:
    return layer(num_tokens=num_tokens, reducer=reducer, **changes)


def read(text: str) -> SearchSpace:
    return parse_space(FIXED + text, "ruled.yaml")


NO_NETWORK = [
    ("C1", lambda: (layer(**SHARED),), "layer 0: shared attention without a dynamic provider at this token count"),
    ("C2", lambda: (layer(), fewer(9, **SHARED)), "layer 1: shared attention without a dynamic provider at this"),
    ("C3", lambda: (layer(), layer(**SHARED, num_heads=3)), "layer 1: 3 heads share the maps of 2 (C3)"),
    ("C5", lambda: (layer(), layer(**STATIC), layer(**SHARED)), "layer 2: shared attention without a dynamic"),
    ("C5", lambda: (layer(), layer(**LINEAR), layer(**SHARED)), "layer 2: shared attention without a dynamic"),
    ("C6", lambda: (layer(**STATIC, **HALF),), "hallucination_ratio 0.5 needs dynamic or shared attention (C6)"),
    ("C6", lambda: (layer(), layer(**SHARED, **HALF)), "layer 1: 1 heads derived from a provider that derives 0 (C6)"),
    ("C10", lambda: (fewer(6, "pool"),), "pool leaves a square number of tokens, got 6 (C10)"),
    ("C10", lambda: (fewer(9), fewer(4, "pool")), "layer 1: pool needs the grid that an earlier glad dissolved (C10)"),
    ("C11", lambda: (fewer(9), layer()), "layer 1: num_tokens grows from 9 to 16 (C11)"),
]
NOT_IN_THE_SPACE = [
    (
        "C4",
        (layer(), layer(**SHARED), layer(**SHARED), layer(**SHARED)),
        "layer 3: shared needs a dynamic layer before it, with at most 1 shared ones in between (C1, C4, C5)",
    ),
    (
        "C6",
        (layer(num_heads=3, hallucination_ratio=0.7), layer(), layer(), layer()),
        "layer 0: hallucination_ratio 0.666667 is not one of [0.0, 0.5] (C6)",
    ),
    (
        "C7",
        (layer(), fewer(9, "pool"), layer(num_tokens=9, **STATIC), layer(num_tokens=9)),
        "layer 2: static behind a reduction; allow it by rules.static_after_reduction (C7)",
    ),
    (
        "C7",
        (layer(), fewer(9, "pool", **STATIC), layer(num_tokens=9), layer(num_tokens=9)),
        "layer 1: static behind a reduction; allow it by rules.static_after_reduction (C7)",
    ),
    (
        "C7",
        (layer(), fewer(9), layer(num_tokens=9, **STATIC), layer(num_tokens=9)),
        "layer 2: static behind a glad (C7)",
    ),
    (
        "C8",
        (layer(), fewer(9, **LINEAR), layer(num_tokens=9), layer(num_tokens=9)),
        "layer 1: linear attention pays from 13 tokens on, here are 10 (C8)",
    ),
    ("C12", (fewer(9), fewer(6), fewer(4), layer(num_tokens=4)), "layer 2: tokens are reduced more than 2 times (C12)"),
    (
        "C14",
        (layer(), layer(ffn_rank=0.375), layer(), layer()),
        "layer 1: ffn_rank 0.375 is not one of [0.25, 0.5, 1.0]",
    ),
]
NEVER_DRAWN = [
    (
        "C1",
        "layers: {attention: shared}",
        "layers.attention: layer 0 has no layer before it to share with (C1); allow dynamic, static or linear",
    ),
    (
        "C2",
        "layers: {attention: [dynamic, shared]}\n"
        "overrides: [{layers: 1-3, num_tokens: 9}, {layers: 1, attention: shared}]",
        "layer 1: no choice is legal: tokens fall from 16 to 9, so no maps can be shared (C2)",
    ),
    (
        "C3",
        "layers: {num_heads: 2}\noverrides: [{layers: 1, num_heads: 3, attention: shared}]",
        "layer 1: no choice is legal: 3 heads share the maps of 2 (C3)",
    ),
    (
        "C4",
        "overrides: [{layers: 1-3, attention: shared}]",
        "layer 3: no choice is legal: shared needs a dynamic layer before it, with at most 1 shared"
        " ones in between (C1, C4, C5)",
    ),
    (
        "C4",
        "overrides: [{layers: 1, attention: shared}]\nrules: {max_shared: 0}",
        "layer 1: no choice is legal: shared needs a rules.max_shared of at least 1 (C4)",
    ),
    (
        "C5",
        "overrides: [{layers: 1, attention: [static, linear]}, {layers: 2, attention: shared}]",
        "layer 2: no choice is legal: shared needs a dynamic layer before it, with at most 1 shared"
        " ones in between (C1, C4, C5)",
    ),
    (
        "C6",
        "layers: {num_heads: 1, hallucination_ratio: [0, 0.5]}",
        "layers.hallucination_ratio: 0.5 needs at least 2 heads, but num_heads is 1 wherever it applies (C6)",
    ),
    (
        "C7",
        "overrides: [{layers: 1-3, num_tokens: 9}, {layers: 2, attention: static}]",
        "layer 2: no choice is legal: static behind a reduction; allow it by rules.static_after_reduction (C7)",
    ),
    (
        "C7",
        "layers: {reducer: glad}\nrules: {static_after_reduction: true}\n"
        "overrides: [{layers: 1-3, num_tokens: 9}, {layers: 2, attention: static}]",
        "layer 2: no choice is legal: static behind a glad (C7)",
    ),
    (
        "C8",
        "overrides: [{layers: 2-3, num_tokens: 9}, {layers: last, attention: linear}]",
        "layer 3: no choice is legal: linear attention pays from 13 tokens on, here are 10 (C8)",
    ),
    (
        "C10",
        "layers: {num_tokens: [16, 6]}",
        "layers.num_tokens[1]: 6 is not a square number; nearest legal: 4, 9, or reducer glad (C10)",
    ),
    (
        "C10",
        "overrides: [{layers: 1-3, num_tokens: 9, reducer: glad}, {layers: 3, num_tokens: 4, reducer: pool}]",
        "layer 3: no choice is legal: pool needs the grid that an earlier glad dissolved (C10)",
    ),
    (
        "C11",
        "overrides: [{layers: 1, num_tokens: 9}, {layers: 2-3, num_tokens: 16}]",
        "overrides[1].num_tokens: layer 2: [16] is more than the 9 of layer 1; tokens never grow (C11)",
    ),
    (
        "C12",
        "overrides: [{layers: 1-3, num_tokens: 9}, {layers: 2-3, num_tokens: 4}]\nrules: {max_reductions: 1}",
        "layer 2: no choice is legal: tokens are reduced more than 1 times (C12)",
    ),
]
NOTED = [
    (
        "C4",
        "layers: {attention: [dynamic, shared]}\nrules: {max_shared: 0}",
        "attention shared is in no network (C1 to C5)",
    ),
    ("C7", "layers: {num_tokens: 9, attention: [dynamic, static]}", "attention static is in no network (C7)"),
    ("C8", "layers: {num_tokens: 9, attention: [dynamic, linear]}", "attention linear is in no network (C8)"),
    ("C11", "overrides: [{layers: 2-3, num_tokens: [16, 9]}]", "fewer than 16 tokens in layers 2, 3 (prior C11)"),
    ("C12", "overrides: [{layers: 1-3, num_tokens: 9}]", "tokens may fall in layer 1, before layer 2 (prior C12)"),
    ("C12", "overrides: [{layers: 3, num_tokens: [16, 9]}]", "tokens may fall in the last layer (prior C12)"),
    (
        "C13",
        "layers: {attention: [dynamic, static]}\noverrides: [{layers: 2-3, attention: [shared, static, dynamic]}]",
        "the last layer may be shared or static (prior C13)",
    ),
    ("C14", "layers: {ffn_rank: [0.875, 1], mlp_ratio: 4}", "ffn_rank 0.875 is in no network (C14)"),
]


@pytest.mark.parametrize(("rule", "layers", "message"), NO_NETWORK)
def test_architecture_refuses_what_no_network_can_be(rule, layers, message):
    with pytest.raises(ArchitectureError) as error:
        Architecture(embed_dim=24, layers=layers())
    assert message.removesuffix(f" ({rule})") in error.value.message.replace(", got static", "")
    assert rule in error.value.message or rule == "C5"


@pytest.mark.parametrize(("rule", "layers", "message"), NOT_IN_THE_SPACE)
def test_space_tells_which_of_its_rules_is_broken(rule, layers, message):
    searched = read(EVERYTHING + "rules: {max_reductions: 2}\n")
    assert searched.why_not(Architecture(embed_dim=24, layers=layers)) == [message]


@pytest.mark.parametrize(("rule", "text", "message"), NEVER_DRAWN)
def test_file_is_refused_where_nothing_can_be_drawn(rule, text, message):
    with pytest.raises(SearchSpaceError) as error:
        read(text)
    (problem,) = error.value.problems
    line, where, *words = problem.split(": ")
    assert int(line.removeprefix("line ")) > 4
    assert ": ".join(words) == message.removeprefix(f"{where}: ")
    assert rule in message


@pytest.mark.parametrize(("rule", "text", "message"), NOTED)
def test_check_notes_what_priors_or_rules_make_of_a_legal_space(rule, text, message):
    found = notes(read(text))
    assert message in found
    assert rule in message or rule == "C4"


def test_space_that_keeps_to_the_priors_has_no_notes():
    text = EVERYTHING.replace("[16, 9, 6, 4]", "16").replace("[pool, conv_pool, glad]", "pool")
    assert notes(read(text + "overrides: [{layers: last, attention: [dynamic, linear]}]\n")) == []


def test_depth_that_no_network_has_is_noted():
    text = "overrides: [{layers: 3, attention: [linear]}, {layers: 2-3, num_tokens: 9}]\n"
    found = notes(parse_space(FIXED.replace("depth: 4", "depth: [2, 4]") + text, "ruled.yaml"))
    assert found[0] == (
        "no network has 4 layers: layer 3: no choice is legal: linear attention pays from 13 tokens on,"
        " here are 10 (C8)"
    )


def test_every_rule_is_told_somewhere():
    told = {rule for table in (NO_NETWORK, NOT_IN_THE_SPACE, NEVER_DRAWN, NOTED) for rule, *_ in table}
    # C9 is about training: a subnet is evaluated without the branch that it trains with
    assert told == {f"C{n}" for n in range(1, 15)} - {"C9"}
