"""The search spaces that are shipped: each loads, says the truth about itself, and holds what it draws."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from nas.architecture import Architecture, AttentionKind, Hallucination, LayerChoice, Reducer
from nas.config import SPACE_KEYS
from nas.document import Section
from nas.space import GENES, SearchSpace
from nas.space_file import (
    BackboneSection,
    ConstraintSection,
    GeneSection,
    OverrideSection,
    SpaceFile,
    parse_space,
)
from nas.yaml_file import dump_yaml, read_yaml

FOLDER = Path(__file__).parents[1] / "search_spaces"
README = FOLDER / "README.md"
NAMES = ["cifar_small", "deit_tiny", "digits"]


@cache
def load(name: str) -> SearchSpace:
    return SearchSpace.from_yaml(FOLDER / f"{name}.yaml")


def test_these_are_all():
    assert sorted(path.stem for path in FOLDER.glob("*.y*ml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
class TestEverySpace:
    def test_is_named_like_its_file(self, name):
        assert load(name).name == name

    def test_header_tells_size_and_ranges(self, name):
        space = load(name)
        macs, params = (
            " to ".join(f"{n / 1e6:,.3g} M" for n in pair)
            for pair in (space.macs_range(), space.params_range())
        )
        header = f"# architectures: {space.size():.2e}   MACs: {macs}   parameters: {params}"
        assert header in (FOLDER / f"{name}.yaml").read_text().splitlines()

    def test_header_names_its_source(self, name):
        header = (FOLDER / f"{name}.yaml").read_text().split("\nname:")[0]
        assert re.search(r"^# Source: ", header, flags=re.MULTILINE)
        assert all(line.startswith("# ") for line in header.splitlines())

    def test_written_again_it_is_the_same_space(self, name):
        again = parse_space(dump_yaml(read_yaml(FOLDER / f"{name}.yaml").data), "again.yaml")
        assert again == load(name)
        assert again.digest == load(name).digest

    def test_smallest_largest_and_samples_are_members(self, name):
        space, rng = load(name), np.random.default_rng(0)
        drawn = [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(100))]
        assert [a.digest for a in drawn if a not in space] == []
        assert [a.digest for a in drawn if Architecture.from_json(a.to_json()) not in space] == []

    def test_every_operator_can_be_drawn(self, name):
        domains = load(name).layers
        for gene in ("attention", "reducer", "hallucination", "hallucination_ratio"):
            assert len({value for domain in domains for value in getattr(domain, gene)}) >= 2


@pytest.mark.parametrize("name", ["cifar_small", "deit_tiny"])
def test_last_layer_is_dynamic_at_every_depth(name):
    space = load(name)
    for depth in space.depth:
        assert space.layers[depth - 1].attention == (AttentionKind.DYNAMIC,)


@pytest.mark.parametrize(("name", "layers"), [("digits", 1), ("cifar_small", 2), ("deit_tiny", 3)])
def test_first_layers_keep_all_tokens(name, layers):
    space = load(name)
    kept = [domain.num_tokens == (space.backbone.num_patches,) for domain in space.layers]
    assert kept == [True] * layers + [False] * (len(kept) - layers)


def test_deit_tiny_is_in_its_space():
    layer = LayerChoice(num_tokens=196, num_heads=3, mlp_ratio=4.0)
    deit = Architecture(embed_dim=192, layers=(layer,) * 12)
    space = load("deit_tiny")
    assert deit in space
    assert space.backbone.timm == "deit_tiny_patch16_224"


class TestReadme:
    def test_genes_of_the_file_are_those_of_a_layer(self):
        assert tuple(GeneSection.model_fields) == GENES

    def test_configuration_knows_the_groups_of_the_space(self):
        assert tuple(SpaceFile.model_fields) == SPACE_KEYS

    def test_readme_documents_every_key_and_no_other(self):
        def keys(section: type[Section], prefix: str) -> set[str]:
            return {prefix + key for key in section.model_fields}

        schema = keys(SpaceFile, "") | keys(BackboneSection, "backbone.") | keys(GeneSection, "layers.")
        schema |= {"overrides.layers"} | keys(ConstraintSection, "constraints.")
        written = re.findall(r"^\| `([a-z_.]+)` \|", README.read_text(), flags=re.MULTILINE)
        assert sorted(written) == sorted(schema | {f"{name}.yaml" for name in NAMES})
        assert set(OverrideSection.model_fields) == {"layers", *GENES}

    def test_readme_names_every_choice(self):
        text = README.read_text()
        words = [member.value for kind in (AttentionKind, Reducer, Hallucination) for member in kind]
        assert [word for word in words if f"`{word}`" not in text] == []

    def test_readme_example_has_the_size_it_says(self):
        example = re.search(r"```yaml\n(.*?)```", README.read_text(), flags=re.DOTALL)
        space = parse_space(example[1], "README.md")
        assert space.size() == 11
        assert space.layers[0].num_heads == (2,)
        low, high = space.macs_range()
        unbounded = parse_space(example[1], "README.md", ["constraints.max_macs=null"]).macs_range()
        assert low == unbounded[0] < high <= 400_000 < unbounded[1]
