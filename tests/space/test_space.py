import copy
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from factories import backbone
from small_spaces import every_choice, listed, space, stems, tiny

from nas.arch import cost
from nas.base.errors import ConfigError, SearchSpaceError
from nas.space.constraints import Constraints
from nas.space.designs import DESIGNS
from nas.space.space import SearchSpace

SPACE = space()


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
        ("layers.1.hallucination_ratio: hallucination_ratio must be in [0, 1), got 1", {"hallucination_ratio": (1,)}),
        ("layers.0.ffn_rank: ffn_rank must be above 0 and at most 1, got 1.5", {"ffn_rank": (1.5,)}),
        ("layers.1.ffn_rank: 0.3 x embed_dim 8 is not whole", {"ffn_rank": (0.3,)}),
        ("layers.0.num_heads: num_heads must be at least 1, got 0", {"num_heads": (0,)}),
        ("layers: layer 0: no choice is legal: shared needs a dynamic", {"attention": ("shared",)}),
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
        ("stem: needs one or more different choices, got []", {"stem": ()}),
        ("stem: pool: not one of patch, conv", {"stem": ("patch", "pool")}),
        (
            "stem: conv: a conv stem halves the image",
            {"stem": ("conv",), "backbone": backbone(image_size=12, patch_size=3)},
        ),
        ("layers: 1 domains for a greatest depth of 2", {"layers": (every_choice(),), "depth": (2,)}),
    ],
)
def test_contradictory_sizes_are_refused(message, changes):
    with pytest.raises(SearchSpaceError) as error:
        space(**changes)
    assert message in error.value.message


# --- identity -----------------------------------------------------------------------------------------------


def test_digests_of_a_space_and_of_its_draws_stay():
    rng, searched = np.random.default_rng(5), space(every_choice(ffn_conv=(False,)))
    drawn = (searched.sample(rng), searched.sample_stratified(rng), searched.mutate(searched.smallest(), rng))
    assert searched.digest == "479942df66b2"
    assert [architecture.digest for architecture in drawn] == ["1c9c1c00dfd9", "9ef3baffb1c4", "c72e51ab17b5"]


@pytest.mark.slow
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
        SPACE,
        tiny(constraints=Constraints(max_macs=120_000, max_params=6_000)),
        tiny().with_num_classes(7),
        tiny(backbone=backbone(class_token=False)),
        tiny(depth=(2,)),
    ]
    assert len({tiny().digest, *(other.digest for other in others)}) == 6
    assert tiny().digest == tiny().digest


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
    bounded = tiny(constraints=Constraints(max_memory=1e6))
    assert bounded.digest != tiny().digest
    assert bounded.to_dict()["constraints"]["max_memory"] == 1e6
    assert "max_memory" not in tiny().to_dict()["constraints"]  # older runs know their space by its digest


def test_with_num_classes_changes_the_classifier_alone():
    searched = tiny(num_classes_from_data=True)
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


def test_a_space_of_two_stems_is_twice_as_large_and_one_of_the_patch_stem_is_as_before():
    both, patch, conv = stems(), stems(stem=("patch",)), stems(stem=("conv",))
    assert both.size() == 2 * patch.size() == 2 * conv.size() == len(set(listed(both)))
    assert "stem" not in patch.to_dict()
    assert both.to_dict()["stem"] == ["patch", "conv"]
    assert len({each.digest for each in (both, patch, conv)}) == 3
    for each in (both, patch, conv):
        networks = set(listed(each))
        costs = [cost.macs(a, each.backbone) for a in networks]
        assert each.macs_range() == (min(costs), max(costs))
        weights = [cost.params(a, each.backbone) for a in networks]
        assert each.params_range() == (min(weights), max(weights))


def test_draws_reach_both_stems():
    searched, rng = stems(), np.random.default_rng(0)
    for draw in (searched.sample, searched.sample_by_gene, searched.sample_stratified):
        drawn = [draw(rng) for _ in range(60)]
        assert {a.stem for a in drawn} == {"patch", "conv"}
        assert all(a in searched for a in drawn)
    neighbours = [searched.mutate(drawn[0], rng) for _ in range(200)]
    assert {a.stem for a in neighbours} == {"patch", "conv"}


def test_a_seed_stands_for_a_generator():
    space = SearchSpace.from_yaml("digits")
    for draw in (space.sample, space.sample_stratified, space.sample_by_gene):
        assert draw(7) == draw(np.random.default_rng(7))
    rng = np.random.default_rng(0)
    assert space.sample(rng) != space.sample(rng)  # a generator goes on
    assert space.mutate(space.largest(), 1) == space.mutate(space.largest(), np.random.default_rng(1))


def test_a_space_is_read_from_a_path_a_name_a_text_or_its_keys(tmp_path):
    text = "name: small\nbackbone: {image_size: 8, patch_size: 2, head_dim: 8}\nembed_dim: [16, 24]\ndepth: 2\n"
    (tmp_path / "small.yaml").write_text(text)
    values = {
        "name": "small",
        "backbone": {"image_size": 8, "patch_size": 2, "head_dim": 8},
        "embed_dim": [16, 24],
        "depth": 2,
    }
    spaces = [SearchSpace.from_yaml(source) for source in (tmp_path / "small.yaml", text, values)]
    assert spaces[0] == spaces[1] == spaces[2]
    assert SearchSpace.from_yaml(spaces[0].to_yaml()) == spaces[0]


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("name: small\ndept: 2\n", SearchSpaceError, "line 2: dept: unknown key"),
        ({"name": "small", "dept": 2}, SearchSpaceError, "small: [0-9]+ problems"),
        ({"name": len}, ConfigError, "a space from keys and values"),
        (3, ConfigError, "a space from 3"),
        ("no_such_space", SearchSpaceError, "neither a file nor a space"),
    ],
)
def test_what_is_no_space_is_said(source, error, words):
    with pytest.raises(error, match=words):
        SearchSpace.from_yaml(source)
