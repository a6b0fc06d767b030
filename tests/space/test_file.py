"""Every way in which the YAML of a search space can be wrong, and what is said of it."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.base.errors import SearchSpaceError
from nas.settings.yaml_file import dump_yaml
from nas.space.designs import DESIGNS
from nas.space.space import parse_space, read_space

PLAIN = """\
name: plain
backbone: {image_size: 32, patch_size: 4}
embed_dim: 192
depth: [2, 4]
"""


def refused(text: str, changes: tuple[str, ...] = ()) -> list[str]:
    """The problems for which `text` is no space."""
    with pytest.raises(SearchSpaceError) as caught:
        parse_space(text, "a.yaml", changes)
    return list(caught.value.problems)


class TestRefusing:
    def test_all_kinds_of_problems_are_told_at_once(self):
        text = """\
name: "../x y"
backbone: {image_size: 33, patch_size: 4, num_classes: autto, in_chans: 1}
embed_dim: [48, 48]
depth: [3, 4]
layers:
  num_tokens: [64, 30]
  attention: [dynamic, statik, linear, softmax]
  halucination_ratio: [0, 0.5]
  ffn_rank: [1, 0.5, 1.5]
  mlp_ratio: [2, 2]
overrides:
  - {layers: 0-9, attention: shared}
  - {layers: 3-1, num_tokens: 35}
  - {num_heads: []}
rules: {max_shared: -1, max_reduction: 2, static_after_reduction: 2}
constraints: {max_macs: -5, max_param: 1e3, max_memory: 0}
seeds: [deit, psvitt, deit]
budget: 3
depth: 3
"""
        keys = "name, backbone, embed_dim, stem, depth, layers, overrides, rules, constraints, seeds"
        designs = "deit, psvit, dgssa_glad, hmhsa_cffn, castling, uniform, plain"
        assert refused(text) == [
            "line 1: name: may hold only letters, digits and -_., as it names folders, got '../x y'",
            "line 2: backbone.in_chans: must be 3, got 1",
            "line 2: backbone.num_classes: must be a whole number of at least 2, or auto, got 'autto'",
            "line 2: backbone.image_size: 33 is not a multiple of patch_size 4; nearest legal: 32, 36",
            "line 3: embed_dim: names 48 twice",
            "line 6: layers.num_tokens[1]: 30 is not a square number; nearest legal: 25, 36, or reducer glad (C10)",
            "line 7: layers.attention[1]: 'statik' is not one of dynamic, static, shared, linear"
            '; did you mean "static"?',
            "line 7: layers.attention[3]: 'softmax' is not one of dynamic, static, shared, linear",
            'line 8: layers.halucination_ratio: unknown key; did you mean "hallucination_ratio"?',
            "line 9: layers.ffn_rank[2]: must be at most 1, got 1.5",
            "line 10: layers.mlp_ratio: names 2.0 twice",
            "line 12: overrides[0].layers: there is no layer 4; layers are 0 to 3",
            "line 13: overrides[1].layers: must be like 3, 0-1, first, last or [0, 2], got '3-1'",
            "line 13: overrides[1].num_tokens: 35 is not a square number; nearest legal: 25, 36, or reducer glad (C10)",
            "line 14: overrides[2].num_heads: needs at least one item, got []",
            "line 14: overrides[2].layers: required, but missing",
            "line 15: rules.max_shared: must be at least 0, got -1",
            "line 15: rules.static_after_reduction: must be true or false, got 2",
            'line 15: rules.max_reduction: unknown key; did you mean "max_reductions"?',
            "line 16: constraints.max_macs: must be more than 0, got -5",
            "line 16: constraints.max_memory: must be more than 0, got 0",
            'line 16: constraints.max_param: unknown key; did you mean "max_params"?',
            f"line 17: seeds[1]: 'psvitt' is not one of {designs}; did you mean \"psvit\"?",
            f"line 18: budget: unknown key; known here: {keys}",
            "line 19: depth: key is given twice, first in line 4",
        ]

    def test_contradictions_are_told_together(self):
        text = PLAIN + (
            "layers:\n"
            "  num_tokens: [64, 30, 100]\n"
            "  attention: shared\n"
            "  mlp_ratio: [2, 2.33]\n"
            "  ffn_rank: [0.3, 1]\n"
            "  num_heads: 1\n"
            "  hallucination_ratio: [0, 0.5]\n"
            "overrides: [{layers: [0, 7, 9], num_tokens: 36}]\n"
        )
        assert refused(text) == [
            "line 6: layers.num_tokens[1]: 30 is not a square number; nearest legal: 25, 36, or reducer glad (C10)",
            "line 6: layers.num_tokens[2]: 100 is more than the 64 patches",
            "line 7: layers.attention: layer 0 has no layer before it to share with (C1)"
            "; allow dynamic, static or linear",
            "line 8: layers.mlp_ratio[1]: 2.33 x embed_dim 192 is not whole",
            "line 9: layers.ffn_rank[0]: 0.3 x embed_dim 192 is not whole",
            "line 11: layers.hallucination_ratio: 0.5 needs at least 2 heads, but num_heads is 1"
            " wherever it applies (C6)",
            "line 12: overrides[0].layers: there is no layer 7; layers are 0 to 3",
        ]

    @pytest.mark.parametrize(
        ("words", "problem"),
        [
            (
                "layers: {num_tokens: 63}",
                "layers.num_tokens: 63 is not a square number; nearest legal: 49, 64, or reducer glad (C10)",
            ),
            ("layers: {num_tokens: 0}", "layers.num_tokens: must be at least 1, got 0"),
            ("layers: {num_tokens: 4.5}", "layers.num_tokens: must be a whole number, got 4.5"),
            ("layers: {num_heads: true}", "layers.num_heads: must not be true or false, got true"),
            ("layers: {attention: [off]}", "layers.attention[0]: 'off' is not one of dynamic, static, shared, linear"),
            ("layers: {attention: [shared, shared]}", "layers.attention: names 'shared' twice"),
            ("layers: {hallucination_ratio: 1}", "layers.hallucination_ratio: must be less than 1, got 1"),
            ("layers: {hallucination: ax}", "layers.hallucination: 'ax' is not one of copy, mix, mix_conv"),
            ("layers: {reducer: merge}", "layers.reducer: 'merge' is not one of pool, conv_pool, glad, embed"),
            ("layers: {ffn_rank: 0}", "layers.ffn_rank: must be more than 0, got 0"),
            ("rules: {max_reductions: 1.5}", "rules.max_reductions: must be a whole number, got 1.5"),
            ("rules: {max_shared: true}", "rules.max_shared: must not be true or false, got true"),
            ("max_shared: 3", 'max_shared: unknown key here; did you mean "rules.max_shared"?'),
            ("layers: {mlp_ratio: 0}", "layers.mlp_ratio: must be more than 0, got 0"),
            ("layers: 5", "layers: must be a group of keys, got 5"),
            ("overrides: [5]", "overrides[0]: must be a group of keys, got 5"),
            ("overrides: last", "overrides: must be a list, such as [a, b], got 'last'"),
            ("overrides: [{layers: []}]", "overrides[0].layers: names no layer"),
            ("overrides: [{layers: -1}]", "overrides[0].layers: must be like 3, 0-1, first, last or [0, 2], got -1"),
            ("overrides: [{layers: 0-99999}]", "overrides[0].layers: there is no layer 4; layers are 0 to 3"),
            ("seeds: 3", f"seeds: 3 is not one of {', '.join(DESIGNS)}"),
            ("seeds: [deit, deit]", "seeds: names 'deit' twice"),
            ("constraints: {max_latency_ms: 0}", "constraints.max_latency_ms: must be more than 0, got 0"),
            ("num_heads: 3", 'num_heads: unknown key here; did you mean "layers.num_heads"?'),
        ],
    )
    def test_wrong_value_is_told_with_its_rule(self, words, problem):
        assert refused(f"{PLAIN}{words}\n") == [f"line 5: {problem}"]

    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            ("depth: [2, 4]", "depth: 0", "line 4: depth: must be at least 1, got 0"),
            ("depth: [2, 4]", "depth: 101", "line 4: depth: must be at most 100, got 101"),
            ("depth: [2, 4]", "depth: []", "line 4: depth: needs at least one item, got []"),
            ("embed_dim: 192", "embed_dim:", "line 3: embed_dim: must be a whole number, got nothing"),
            ("embed_dim: 192\n", "", "embed_dim: required, but missing"),
            ("name: plain", "name: 7", "line 1: name: must be text, got 7; put it in quotes"),
            ("image_size: 32, ", "", "line 2: backbone.image_size: required, but missing"),
            (
                "image_size: 32",
                "image_size: 2",
                "line 2: backbone.image_size: 2 is not a multiple of patch_size 4; nearest legal: 4",
            ),
            ("patch_size: 4", "patch_size: 0", "line 2: backbone.patch_size: must be at least 1, got 0"),
            ("patch_size: 4", "family: pvt, patch_size: 4", "line 2: backbone.family: must be vit, got 'pvt'"),
            (
                "patch_size: 4",
                "patch_size: 4, num_classes: 1",
                "line 2: backbone.num_classes: must be a whole number of at least 2, or auto, got 1",
            ),
        ],
    )
    def test_wrong_required_key_is_told(self, old, new, problem):
        assert refused(PLAIN.replace(old, new)) == [problem]

    def test_empty_file_lists_what_is_required(self):
        missing = [f"{key}: required, but missing" for key in ("name", "backbone", "embed_dim", "depth")]
        assert refused("") == missing

    def test_tokens_that_would_grow_are_told_at_the_layer(self):
        text = PLAIN + "overrides:\n  - {layers: 1, num_tokens: [36, 16]}\n"
        assert refused(text + "  - {layers: 2-3, num_tokens: [64, 49]}\n") == [
            "line 7: overrides[1].num_tokens: layer 2: [64, 49] is more than the 36 of layer 1; tokens never grow (C11)"
        ]
        assert refused(text) == [
            "line 6: overrides[0].num_tokens: layer 2: num_tokens is left out, so 64 is more than"
            " the 36 of layer 1; tokens never grow (C11)"
        ]

    def test_wrong_choices_do_not_cause_further_complaints(self):
        text = (
            PLAIN
            + "layers: {num_heads: [x], attention: shared, hallucination_ratio: 0.5}\n"
            + "overrides: [{layers: 0, attention: dynamc}]\n"
        )
        assert refused(text) == [
            "line 5: layers.num_heads[0]: must be a whole number, got 'x'",
            "line 6: overrides[0].attention: 'dynamc' is not one of dynamic, static, shared, linear"
            '; did you mean "dynamic"?',
        ]

    def test_a_wrong_reducer_may_have_been_glad(self):
        assert refused(PLAIN + "layers: {num_tokens: [64, 30], reducer: [pool, gald]}\n") == [
            "line 5: layers.reducer[1]: 'gald' is not one of pool, conv_pool, glad, embed; did you mean \"glad\"?"
        ]

    def test_a_convolution_in_feed_forwards_is_true_or_false(self):
        text = PLAIN + "layers: {num_tokens: [64, 16], ffn_conv: [false, true]}\n"
        assert parse_space(text, "a.yaml").layers[2].ffn_conv == (False, True)
        line = text[: text.index("layers: {")].count("\n") + 1
        for wrong in ("yes please", "1", "[0, 1]"):
            assert len(refused(text.replace("[false, true]", wrong))) >= 1
            assert refused(text.replace("[false, true]", wrong))[0].startswith(f"line {line}: layers.ffn_conv")

    def test_a_glad_behind_does_not_help(self):
        text = PLAIN + "overrides:\n  - {layers: 1, num_tokens: 30}\n  - {layers: 2-3, reducer: glad, num_tokens: 9}\n"
        assert refused(text) == [
            "line 6: overrides[0].num_tokens: 30 is not a square number; nearest legal: 25, 36, or reducer glad (C10)"
        ]

    @pytest.mark.parametrize(
        ("words", "problems"),
        [
            ("overrides: [5, {layers: 0, num_heads: x}]", 2),
            ("layers:\noverrides: [{}]\nseeds: {a: 1}", 2),
            ("layers:\noverrides: [{}]\nbudget: {a: 1}", 2),
            ("overrides: [[1], {layers: {a: 1}}]\nlayers: [1]", 3),
        ],
    )
    def test_problems_inside_problems_are_told(self, words, problems):
        assert len(refused(PLAIN + words)) == problems

    def test_group_without_its_required_keys_is_told(self):
        assert refused(PLAIN.replace("{image_size: 32, patch_size: 4}", "") + "layers: {num_tokens: 3}\n") == [
            "line 2: backbone.image_size: required, but missing",
            "line 2: backbone.patch_size: required, but missing",
            "line 5: layers.num_tokens: 3 is not a square number; nearest legal: 1, 4, or reducer glad (C10)",
        ]

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.data())
    def test_any_value_anywhere_is_a_space_or_one_clear_error(self, data):
        content = {
            "name": "x",
            "backbone": {"image_size": 16, "patch_size": 4, "head_dim": 16},
            "embed_dim": [32],
            "depth": [2, 3],
            "layers": {"num_tokens": [16, 4], "attention": ["dynamic", "shared"], "num_heads": [1, 2]},
            "overrides": [{"layers": "last", "mlp_ratio": 2}, {"layers": [0], "hallucination_ratio": 0.5}],
            "rules": {"max_shared": 1},
            "constraints": {"max_macs": 1e7},
        }
        wrong = st.sampled_from([None, True, -1, 0, 1, 3, 4.5, "x", "", [], {}, [[]], [None], ["last"], {"layers": 1}])
        for _ in range(data.draw(st.integers(1, 3))):
            group = data.draw(st.sampled_from([content, *(v for v in content.values() if isinstance(v, dict) and v)]))
            key = data.draw(st.sampled_from([*group, "zzz"]))
            group[key] = data.draw(wrong)
        try:
            parse_space(dump_yaml(content), "a.yaml")
        except SearchSpaceError as error:
            assert error.problems  # noqa: PT017
            assert all(": " in problem and "Error" not in problem for problem in error.problems)  # noqa: PT017

    def test_layers_without_a_legal_sequence_are_told(self):
        text = PLAIN + "layers: {attention: shared}\noverrides: [{layers: 0, attention: static}]\n"
        assert refused(text) == [
            "line 5: layers: layer 1: no choice is legal: shared needs a dynamic layer before it,"
            " with at most 1 shared ones in between (C1, C4, C5)"
        ]

    def test_constraint_that_nothing_meets_is_told_with_the_least_possible(self):
        least = r"line 5: constraints: no architecture meets at most 1,000 MACs; the least possible is"
        with pytest.raises(SearchSpaceError, match=least) as caught:
            parse_space(PLAIN + "constraints: {max_macs: 1e3}\n", "a.yaml")
        assert caught.value.hint == "raise the bound, or allow cheaper choices"

    @pytest.mark.parametrize(
        ("bounds", "least"),
        [
            ("max_memory: 1e3", r"at most 1,000 bytes; the least possible is [\d,]+ bytes$"),
            (
                "max_macs: 10, max_params: 10, max_memory: 10",
                r"at most 10 MACs and at most 10 parameters and at most 10 bytes; the least possible is [\d,]+"
                r" MACs and [\d,]+ parameters and [\d,]+ bytes, each without the other bounds$",
            ),
        ],
    )
    def test_every_bound_is_told_with_the_least_possible(self, bounds, least):
        (problem,) = refused(PLAIN + f"constraints: {{{bounds}}}\n")
        assert re.match(r"line 5: constraints: no architecture meets " + least, problem), problem

    def test_wrong_setting_is_told_as_a_setting(self):
        changes = ("constraints.max_macs=lots", "layers.num_tokens=[64, 30]", "nam=x", "layers")
        assert refused(PLAIN, changes) == [
            "--set layers: must look like section.key=value",
            "--set constraints.max_macs: must be a number, got 'lots'",
            '--set nam: unknown key; did you mean "name"?',
            "--set layers.num_tokens[1]: 30 is not a square number; nearest legal: 25, 36, or reducer glad (C10)",
        ]

    def test_error_names_the_file_and_what_to_do(self, tmp_path):
        (tmp_path / "a.yaml").write_text(PLAIN + "x: 1")
        with pytest.raises(SearchSpaceError) as caught:
            read_space(tmp_path / "a.yaml")
        assert caught.value.message.startswith(f"{tmp_path / 'a.yaml'}: 1 problem\n  line 5: x: unknown key")
        assert caught.value.hint == "run `nas check FILE` after editing; every key: search_spaces/README.md"

    def test_missing_file_is_told(self, tmp_path):
        with pytest.raises(SearchSpaceError, match="no such file"):
            read_space(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("embed_dim=1000000000000", "embed_dim: must be at most 65536"),
        ("backbone.image_size=1e12", "must be at most 65536"),
        ("backbone.head_dim=9223372036854775808", "must be at most 65536"),
        ("backbone.num_classes=1000000000000", "must be at most 1000000"),
        ("layers.num_heads=9223372036854775808", "must be at most 65536"),
        ("layers.mlp_ratio=1e9", "must be at most 1024"),
        ("layers.mlp_ratio=1e-9", "leaves nothing"),
        ("layers.mlp_ratio=[4, 1e-300]", "leaves nothing"),
        ("layers.ffn_rank=1e-9", "leaves nothing"),
        (f"layers.num_heads={list(range(1, 102))}", "must have at most 100 items"),
    ],
)
def test_sizes_that_no_network_can_have_are_refused(change, problem):
    assert problem in " ".join(refused(PLAIN, (change,)))
