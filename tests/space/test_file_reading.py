"""From YAML to a search space: defaults, overrides, settings."""

import pytest

from nas.arch.operator import Rules
from nas.base.errors import SearchSpaceError
from nas.space.constraints import Constraints
from nas.space.designs import DESIGNS
from nas.space.domain import LayerDomain
from nas.space.space import parse_space, read_space

PLAIN = """\
name: plain
backbone: {image_size: 32, patch_size: 4}
embed_dim: 192
depth: [2, 4]
"""


def test_gene_left_out_has_the_plain_vits_value():
    space = parse_space(PLAIN, "a.yaml")
    domain = LayerDomain(
        num_tokens=(64,),
        reducer=("pool",),
        attention=("dynamic",),
        hallucination_ratio=(0.0,),
        hallucination=("copy",),
        num_heads=(3,),
        ffn_rank=(1.0,),
        mlp_ratio=(4.0,),
    )
    assert space.layers == (domain,) * 4
    assert space.rules == Rules()
    assert space.constraints == Constraints()
    assert (space.name, space.embed_dim, space.depth, space.size()) == ("plain", (192,), (2, 4), 2)


def test_backbone_defaults_are_those_of_deit():
    backbone = parse_space(PLAIN, "a.yaml").backbone
    assert (backbone.family, backbone.timm, backbone.in_chans, backbone.head_dim) == ("vit", "", 3, 64)
    assert backbone.class_token is True


@pytest.mark.parametrize("words", ["", ", num_classes: auto"])
def test_classes_come_from_the_data_unless_given(words):
    space = parse_space(PLAIN.replace("patch_size: 4", f"patch_size: 4{words}"), "a.yaml")
    assert (space.backbone.num_classes, space.num_classes_from_data) == (1000, True)


def test_given_classes_stay():
    space = parse_space(PLAIN.replace("patch_size: 4", "patch_size: 4, num_classes: 7"), "a.yaml")
    assert (space.backbone.num_classes, space.num_classes_from_data) == (7, False)


def test_scalar_is_one_choice():
    text = "layers: {num_tokens: 36, attention: dynamic, num_heads: 2, mlp_ratio: 3}\n"
    listed = "layers: {num_tokens: [36], attention: [dynamic], num_heads: [2], mlp_ratio: [3]}\n"
    assert parse_space(PLAIN + text, "a.yaml") == parse_space(PLAIN + listed, "a.yaml")


def test_heads_default_to_the_widest_network_of_the_space():
    space = parse_space(PLAIN.replace("192", "[32, 144]"), "a.yaml")
    assert space.layers[0].num_heads == (2,)


def test_network_narrower_than_a_head_has_one_head():
    assert parse_space(PLAIN.replace("192", "32"), "a.yaml").layers[0].num_heads == (1,)


def test_later_override_wins_and_keeps_what_it_leaves_out():
    text = PLAIN + (
        "layers: {num_heads: [2, 3], mlp_ratio: 2}\n"
        "overrides:\n"
        "  - {layers: 0-2, num_heads: 2, mlp_ratio: 3}\n"
        "  - {layers: [2, 3], num_heads: [1, 2]}\n"
    )
    layers = parse_space(text, "a.yaml").layers
    assert [layer.num_heads for layer in layers] == [(2,), (2,), (1, 2), (1, 2)]
    assert [layer.mlp_ratio for layer in layers] == [(3.0,), (3.0,), (3.0,), (2.0,)]


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ("2", {2}),
        ("0-1", {0, 1}),
        ("0 - 1", {0, 1}),
        ("3-3", {3}),
        ("first", {0}),
        ("last", {1, 3}),
        ("[0, 2]", {0, 2}),
        ("[first, 1-2]", {0, 1, 2}),
    ],
)
def test_layers_of_an_override(words, numbers):
    """`last` ends a network of some depth: with depths 2 and 4 that is layer 1 and layer 3."""
    space = parse_space(PLAIN + f"overrides: [{{layers: {words}, mlp_ratio: 2}}]\n", "a.yaml")
    assert {i for i, layer in enumerate(space.layers) if layer.mlp_ratio == (2.0,)} == numbers


def test_empty_groups_are_left_out_groups():
    assert parse_space(PLAIN + "layers:\noverrides:\nrules:\nconstraints:\n", "a.yaml") == parse_space(PLAIN, "a.yaml")


def test_every_operator_is_read():
    text = (
        "layers:\n"
        "  attention: [linear, shared, static, dynamic]\n"
        "  reducer: [glad, conv_pool]\n"
        "  hallucination: [mix, mix_conv]\n"
        "  ffn_rank: [1, 0.5, 0.25]\n"
    )
    (domain, *_) = parse_space(PLAIN + text, "a.yaml").layers
    kinds = ("linear", "shared", "static", "dynamic")
    assert domain.attention == tuple(kinds)
    assert domain.reducer == ("glad", "conv_pool")
    assert domain.hallucination == ("mix", "mix_conv")
    assert domain.ffn_rank == (1.0, 0.5, 0.25)


def test_rules_are_read_one_by_one():
    text = PLAIN + "rules: {max_shared: 3, static_after_reduction: true}\n"
    space = parse_space(text, "a.yaml", ["rules.max_reductions=0"])
    assert space.rules == Rules(max_shared=3, max_reductions=0, static_after_reduction=True)
    assert space.digest != parse_space(PLAIN, "a.yaml").digest


def test_every_bound_is_read():
    text = PLAIN + "constraints: {max_macs: 9e9, max_params: 9e8, max_memory: 9e9, max_latency_ms: 8}\n"
    bounds = Constraints(max_macs=9e9, max_params=9e8, max_memory=9e9, max_latency={"latency_ms": 8.0})
    assert parse_space(text, "a.yaml").constraints == bounds


@pytest.mark.parametrize(
    ("words", "seeds"),
    [("", DESIGNS), ("seeds: deit", ("deit",)), ("seeds: [psvit, deit]", ("psvit", "deit")), ("seeds: []", ())],
)
def test_seeds_are_read_and_all_designs_where_they_are_left_out(words, seeds):
    space = parse_space(f"{PLAIN}{words}\n", "a.yaml")
    assert space.seeds == seeds
    assert space.digest == parse_space(PLAIN, "a.yaml").digest


@pytest.mark.parametrize(
    "words",
    [
        "layers: {num_tokens: [64, 30], reducer: [pool, glad]}",
        "layers: {num_tokens: [64, 30]}\noverrides: [{layers: 1, reducer: glad}]",
        "layers: {reducer: glad}\noverrides: [{layers: 3, num_tokens: 30}]",
        "overrides: [{layers: 1, reducer: glad}, {layers: 2-3, num_tokens: [64, 30]}]",
    ],
)
def test_any_number_of_tokens_is_legal_where_a_glad_may_leave_it(words):
    assert any(30 in domain.num_tokens for domain in parse_space(f"{PLAIN}{words}\n", "a.yaml").layers)


def test_settings_are_put_on_top():
    text = PLAIN + "constraints: {max_macs: 1e3, max_latency_ms: 8}\n"
    space = parse_space(text, "a.yaml", ["constraints.max_macs=9e7", "layers.num_heads=[1, 2]", "depth=2"])
    assert space.constraints == Constraints(max_macs=9e7, max_latency={"latency_ms": 8.0})
    assert space.depth == (2,)
    assert space.layers[0].num_heads == (1, 2)


def test_file_is_read(tmp_path):
    (tmp_path / "a.yaml").write_text(PLAIN)
    assert read_space(tmp_path / "a.yaml") == parse_space(PLAIN, "a.yaml")
    assert read_space(tmp_path / "a.yaml", ["name=b"]).name == "b"


def test_the_stem_is_a_choice_of_the_network():
    assert parse_space(PLAIN, "a.yaml").stem == ("patch",)
    both = parse_space(PLAIN + "stem: [patch, conv]\n", "a.yaml")
    assert (both.stem, both.size()) == (("patch", "conv"), 4)
    assert parse_space(both.to_yaml(), "a.yaml") == both
    assert parse_space(PLAIN, "a.yaml", ["stem=conv"]).stem == ("conv",)


def test_a_conv_stem_for_patches_that_are_no_power_of_two_is_refused_with_its_line():
    text = PLAIN.replace("patch_size: 4", "patch_size: 16").replace("size: 32", "size: 48") + "stem: [patch, conv]\n"
    assert parse_space(text, "a.yaml").stem == ("patch", "conv")
    with pytest.raises(SearchSpaceError, match=r"line 5: stem\[1\]: a conv stem halves the image, .* not 12"):
        parse_space(text.replace("patch_size: 16", "patch_size: 12"), "a.yaml")
    with pytest.raises(
        SearchSpaceError, match=r"line 5: stem: 'cnv' is not one of patch, conv, overlap; did you mean \"conv\""
    ):
        parse_space(PLAIN + "stem: cnv\n", "a.yaml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: x\nlayers: {num_tokens: [16, 9\n", "not YAML: while parsing a flow sequence"),
        ("name\tx: {\n", "not YAML: "),
        ("just words", "the top level must be lines of `key: value`, got 'just words'"),
    ],
)
def test_what_cannot_be_read_is_the_only_problem(text, problem):
    with pytest.raises(SearchSpaceError) as caught:
        parse_space(text, "x.yaml")
    (only,) = caught.value.problems
    assert problem in only
