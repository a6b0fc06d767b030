"""What of a legal space deserves a second look; the words for every rule are in test_rules.py."""

import numpy as np
import pytest
from factories import backbone
from small_spaces import every_choice, space, stems

from nas.arch import LayerChoice
from nas.base.errors import SearchSpaceError
from nas.space.reasons import _layers, check_memory, notes, why_not_within
from nas.space.space import parse_space


def test_a_space_without_choices_is_plain():
    assert notes(space(every_choice(num_tokens=(16,), attention=("dynamic",), reducer=("pool",)))) == []


def test_a_value_that_no_network_has_is_named_with_its_rule():
    found = notes(space(every_choice(num_tokens=(16,), attention=("dynamic", "shared")), depth=(1,)))
    assert [text for text in found if "attention shared" in text] == ["attention shared is in no network (C1 to C5)"]


def test_layers_of_few_tokens_are_named():
    assert any("fewer than 16 tokens" in text for text in notes(space()))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [([3], "layer 3"), ([1, 2], "layers 1, 2"), ([3, 1, 2], "layers 1-3"), ([0, 1, 3], "layers 0, 1, 3")],
)
def test_layers_in_a_row_are_a_range(numbers, words):
    assert _layers(numbers) == words


def test_what_is_noted_as_impossible_is_in_no_draw():
    searched = space(every_choice(attention=("dynamic", "static")))
    impossible = {text.split(" is in no network")[0] for text in notes(searched) if "is in no network" in text}
    rng = np.random.default_rng(0)
    layers: set[LayerChoice] = {layer for _ in range(300) for layer in searched.sample(rng).layers}
    for text in impossible:
        gene, value = text.split()
        assert value not in {str(getattr(layer, gene)) for layer in layers}


@pytest.mark.parametrize("size", ["embed_dim: 65536", "embed_dim: 64\nlayers: {mlp_ratio: 1024, num_heads: 65536}"])
def test_a_network_that_this_machine_cannot_train_is_refused_with_the_figure(size):
    text = f"name: big\nbackbone: {{image_size: 32, patch_size: 4, head_dim: 16384}}\n{size}\ndepth: 12\n"
    with pytest.raises(SearchSpaceError, match=r"parameters\) needs [0-9,]+ GB of memory to be trained; there are"):
        check_memory(parse_space(text, "big.yaml"))


def test_images_that_make_too_many_tokens_are_refused_with_the_figure():
    text = "name: big\nbackbone: {image_size: 32768, patch_size: 16, class_token: false}\nembed_dim: 64\ndepth: 1\n"
    with pytest.raises(SearchSpaceError, match="memory to be run on one image"):
        check_memory(parse_space(text, "big.yaml"))


def test_what_fits_is_let_through():
    check_memory(space())


PLAIN = {"num_tokens": (16,), "reducer": ("pool",), "attention": ("dynamic",), "hallucination_ratio": (0.0,)}


@pytest.mark.parametrize(
    "genes",
    [
        {},
        PLAIN,
        {"hallucination_ratio": (0.5,), "num_heads": (3,)},  # one head of three, as 0.34 is
        {"ffn_rank": (0.875,), "mlp_ratio": (2.0,)},  # saves nothing, so it is 1
        {"attention": ("static",), "hallucination_ratio": (0.0,), "hallucination": ("copy",)},
    ],
)
def test_fewer_choices_are_a_part(genes):
    whole = space()
    assert why_not_within(space(every_choice(**genes), embed_dim=(24,), depth=(2, 3)), whole) == []


@pytest.mark.parametrize(
    ("genes", "words"),
    [
        ({"reducer": ("conv_pool",)}, "layers 0, 1: reducer [conv_pool], there [pool]"),
        ({"hallucination_ratio": (0.0,)}, "layers 0, 1: hallucination_ratio [0.0], there [0.5]"),
        ({"hallucination_ratio": (0.7,)}, "layers 0, 1: hallucination_ratio [0.7], there [0.5]"),
        ({"ffn_rank": (1.0,)}, "layers 0, 1: ffn_rank [1.0], there [0.5]"),
        ({"mlp_ratio": (1.0, 2.0)}, "layers 0, 1: mlp_ratio [1.0], there [2.0]"),
        ({"num_heads": (3, 4)}, "layers 0, 1: num_heads [4], there [2, 3]"),
    ],
)
def test_a_choice_that_the_other_does_not_have_is_named(genes, words):
    few = {"reducer": ("pool",), "hallucination_ratio": (0.5,), "ffn_rank": (0.5,), "mlp_ratio": (2.0,)}
    few["num_heads"] = (2, 3)
    whole = space(every_choice(**few), depth=(2,))
    assert why_not_within(space(every_choice(**{**few, **genes}), depth=(2,)), whole) == [words]


def test_layers_that_no_network_reaches_are_part_of_any_space():
    few, many = every_choice(num_tokens=(4,)), every_choice(num_tokens=(16,), mlp_ratio=(3.0,))
    whole = space(every_choice(), depth=(2, 3, 4))
    assert why_not_within(space(layers=(few, few, many, many), depth=(2, 4)), whole) == []


def test_all_that_is_outside_is_named_with_its_layers():
    other = space(embed_dim=(16, 32), depth=(3, 5), backbone=backbone(head_dim=12))
    assert why_not_within(other, space()) == [
        "backbone.head_dim: 12, there 8",
        "embed_dim: [32], there [16, 24]",
        "depth: [5], there [2, 3, 4]",
    ]


def test_a_stem_that_another_space_does_not_have_is_named():
    assert why_not_within(stems(), stems(stem=("patch",))) == ["stem: [conv], there [patch]"]
    assert why_not_within(stems(stem=("patch",)), stems()) == []
