"""The search spaces that are shipped: each loads, says the truth about itself, and holds what it draws."""

import re
from dataclasses import fields, replace
from functools import cache
from itertools import groupby, product
from pathlib import Path

import numpy as np
import pytest

from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.operator import Rules
from nas.arch.operators import ATTENTION, HALLUCINATION, REDUCERS, STEMS
from nas.settings.config import INNER_SPACE_KEYS, SPACE_KEYS
from nas.settings.document import Section
from nas.settings.yaml_file import dump_yaml, read_yaml
from nas.space.designs import DESIGNS
from nas.space.domain import GENES, LayerDomain
from nas.space.file import BackboneSection, ConstraintSection, GeneSection, OverrideSection, RuleSection, SpaceFile
from nas.space.reasons import notes
from nas.space.space import SearchSpace, parse_space, read_space

FOLDER = Path(__file__).parents[2] / "search_spaces"
README = FOLDER / "README.md"
NAMES = [
    "autoformer_tiny",
    "castling",
    "cifar_groups",
    "cifar_joint",
    "cifar_small",
    "deit_tiny",
    "dgssa_glad",
    "digits",
    "digits_pvt",
    "hmhsa_cffn",
    "hmhsa_cffn_pvt",
    "joint_small",
    "joint_tiny",
    "psvit",
    "pvt_cifar",
    "pvt_v2_b1",
    "small_128",
    "small_64",
    "small_96",
]
SMALL = ["small_64", "small_96", "small_128"]
JOINT = ["cifar_joint", "joint_small", "joint_tiny"]
SEEDED = {  # by a plain ViT of timm, which is in the space: (channels, heads)
    "castling": (192, 3),
    "deit_tiny": (192, 3),
    "dgssa_glad": (384, 6),
    "hmhsa_cffn": (384, 6),
    "joint_small": (384, 6),
    "joint_tiny": (192, 3),
    "psvit": (192, 3),
}
PAPERS = {
    "autoformer_tiny": ["2107.00651"],
    "castling": ["2211.10526"],
    "dgssa_glad": ["2310.07664"],
    "hmhsa_cffn": ["2306.10875"],
    "psvit": ["2108.03428"],
} | {name: ["2211.10526", "2310.07664", "2306.10875", "2108.03428"] for name in JOINT}


@cache
def load(name: str) -> SearchSpace:
    return SearchSpace.from_yaml(FOLDER / f"{name}.yaml")


def amount(number: int) -> str:
    return f"{number / 1e9:.3g} G" if number >= 1e9 else f"{number / 1e6:.3g} M"


def test_these_are_all():
    assert sorted(path.stem for path in FOLDER.glob("*.y*ml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
class TestEverySpace:
    def test_is_named_like_its_file(self, name):
        assert load(name).name == name

    def test_header_tells_size_and_ranges(self, name):
        space = load(name)
        macs, params = (" to ".join(map(amount, pair)) for pair in (space.macs_range(), space.params_range()))
        size = f"{space.size():,}" if space.size() < 1e9 else f"{space.size():.2e}"
        header = f"# architectures: {size}   MACs: {macs}   parameters: {params}"
        assert header in (FOLDER / f"{name}.yaml").read_text().splitlines()

    def test_header_names_its_source(self, name):
        header = (FOLDER / f"{name}.yaml").read_text().split("\nname:")[0]
        assert re.search(r"^# Source: ", header, flags=re.MULTILINE)
        assert all(line.startswith("# ") for line in header.splitlines())
        assert [number for number in PAPERS.get(name, []) if number not in header] == []

    def test_written_again_it_is_the_same_space(self, name):
        again = parse_space(dump_yaml(read_yaml(FOLDER / f"{name}.yaml").data), "again.yaml")
        assert again == load(name)
        assert again.digest == load(name).digest

    def test_smallest_largest_and_samples_are_members(self, name):
        space, rng = load(name), np.random.default_rng(0)
        drawn = [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(100))]
        assert [a.digest for a in drawn if a not in space] == []
        assert [a.digest for a in drawn if Architecture.from_json(a.to_json()) not in space] == []

    def test_every_choice_is_in_some_network(self, name):
        assert [note for note in notes(load(name)) if "in no network" in note] == []
        assert [note for note in notes(load(name)) if note.startswith("no network")] == []


@pytest.mark.parametrize("name", [*JOINT, "digits"])
def test_every_operator_is_in_the_joint_spaces(name):
    domains = load(name).layers
    for gene, kind in (("attention", ATTENTION), ("reducer", REDUCERS), ("hallucination", HALLUCINATION)):
        listed = {value for domain in domains for value in getattr(domain, gene)}
        unlisted = set(kind) - listed
        alone = {"embed"} if gene == "reducer" else set()  # without a class token
        assert unlisted == ({"linear"} if (name, gene) == ("digits", "attention") else alone)
    assert any(rank < 1 for domain in domains for rank in domain.ffn_rank)
    assert any(ratio > 0 for domain in domains for ratio in domain.hallucination_ratio)


def test_linear_attention_never_pays_on_the_digits():
    digits = load("digits")
    start = digits.walk.start
    assert digits.walk.broken_attention(start, start.arriving, True, "linear", 1, 0)


@pytest.mark.parametrize("name", ["cifar_small", "deit_tiny", *SMALL, *JOINT])
def test_last_layer_is_dynamic_at_every_depth(name):
    space = load(name)
    for depth in space.depth:
        assert space.layers[depth - 1].attention == ("dynamic",)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("digits", 1),
        ("cifar_small", 2),
        ("cifar_joint", 1),
        ("psvit", 2),
        ("deit_tiny", 1),
        ("dgssa_glad", 4),
        ("joint_tiny", 4),
        ("joint_small", 4),
        *((name, 1) for name in SMALL),
    ],
)
def test_first_layers_keep_all_tokens(name, layers):
    space = load(name)
    kept = [domain.num_tokens == (space.backbone.num_patches,) for domain in space.layers]
    assert kept == [True] * layers + [False] * (len(kept) - layers)


@pytest.mark.parametrize("name", SEEDED)
def test_the_timm_model_that_seeds_a_space_is_in_it(name):
    space, (width, heads) = load(name), SEEDED[name]
    layer = LayerChoice(num_tokens=196, num_heads=heads, mlp_ratio=4.0)
    assert Architecture(embed_dim=width, layers=(layer,) * 12) in space
    assert space.backbone.timm == f"deit_{'tiny' if width == 192 else 'small'}_patch16_224"


def test_space_of_a_paper_can_be_put_on_deit_ti():
    header = (FOLDER / "hmhsa_cffn.yaml").read_text()
    settings = re.findall(r"--set (\S+)", header)
    space = read_space(FOLDER / "hmhsa_cffn.yaml", settings)
    assert (space.embed_dim, space.layers[0].num_heads) == ((192,), (3,))
    assert space.backbone.timm == "deit_tiny_patch16_224"
    assert space.size() == load("hmhsa_cffn").size()


def test_joint_cifar_space_is_for_a_cpu():
    assert load("cifar_joint").macs_range()[1] < 200e6


@pytest.mark.parametrize("name", SMALL)
def test_larger_images_have_the_tokens_and_operators_that_were_measured_on_small_ones(name):
    space, small = load(name), load("cifar_small")
    assert space.stem == small.stem == ("patch",)
    assert space.backbone.image_size == int(name.removeprefix("small_"))
    assert space.backbone.num_patches == small.backbone.num_patches
    for domain in space.layers[2:-1]:
        assert domain.num_tokens == small.layers[2].num_tokens
        assert domain.reducer == ("pool",)
        assert set(domain.attention) <= {"dynamic", "shared"}
        assert domain.ffn_rank == (0.5, 1)
        assert domain.ffn_conv == (True,)  # of all or of none: where some have it, shared weights lose what it gives
        assert domain.hallucination_ratio == (0.0,)
    assert space.macs_range()[1] < 350e6  # for a CPU


def test_glad_pyramid_holds_a_number_of_tokens_that_is_no_square():
    space = load("dgssa_glad")
    rng = np.random.default_rng(0)
    drawn = {layer.num_tokens for _ in range(50) for layer in space.sample(rng).layers}
    assert drawn == {196, 98, 49}


class TestPSViT:
    """The compact set as one share bit and one pool bit a layer, counted for itself (METHODS 4.4)."""

    @staticmethod
    def patterns(longest: int, first_pooled: int, most_pooled: int = 2, depth: int = 12) -> int:
        """Legal pairs of bit strings, tried one after the other."""
        count = 0
        for shares in product((0, 1), repeat=depth):
            runs = [len(list(run)) for bit, run in groupby(shares) if bit]
            if shares[0] or max(runs, default=0) > longest:
                continue
            may_pool = [i for i in range(first_pooled, depth) if not shares[i]]
            n = len(may_pool)
            count += (1, 1 + n, 1 + n + n * (n - 1) // 2)[most_pooled]
        return count

    @staticmethod
    def compact(tokens: tuple[int, ...], longest: int, first_pooled: int) -> int:
        """Size of the space over so many token counts."""
        kinds = ("dynamic", "shared")
        early = LayerDomain(num_tokens=tokens[:1], attention=kinds, num_heads=(3,))
        layers = tuple(early if i < first_pooled else replace(early, num_tokens=tokens) for i in range(12))
        rules = Rules(max_shared=longest, max_reductions=2)
        return replace(load("psvit"), layers=layers, rules=rules).size()

    @pytest.mark.parametrize(("longest", "patterns"), [(1, 8_369), (2, 25_144), (12, 41_472)])
    @pytest.mark.parametrize("first_pooled", [1, 2])
    def test_bits_and_token_counts_are_the_same_networks(self, longest, patterns, first_pooled):
        """Two lower counts can be reached in one step, which bits cannot say: once for every single step."""
        one, two, three = (self.compact((196, 100, 49)[:n], longest, first_pooled) for n in (1, 2, 3))
        assert [one, two] == [self.patterns(longest, first_pooled, n) for n in (0, 1)]
        assert three - (two - one) == self.patterns(longest, first_pooled)
        if first_pooled == 1:
            assert self.patterns(longest, first_pooled) == patterns

    def test_shipped_set_is_the_one_that_pools_from_layer_2_on(self):
        assert load("psvit").size() == self.compact((196, 100, 49), 2, 2)
        header = (FOLDER / "psvit.yaml").read_text()
        assert f"{self.patterns(2, 1):,} patterns" in header
        assert f"{self.patterns(2, 2):,} if pooling begins at layer 2" in header


def test_every_choice_of_castling_is_free():
    assert load("castling").size() == 2**12


def test_autoformer_has_its_papers_choices():
    # 3 widths; heads and hidden width of every layer of 12 to 14
    assert load("autoformer_tiny").size() == 3 * (4**12 + 4**13 + 4**14)


class TestReadme:
    def test_genes_of_the_file_are_those_of_a_layer(self):
        assert tuple(GeneSection.model_fields) == GENES

    def test_configuration_knows_the_groups_of_the_space(self):
        assert tuple(SpaceFile.model_fields) == SPACE_KEYS
        groups = {
            "backbone": BackboneSection, "layers": GeneSection, "rules": RuleSection, "constraints": ConstraintSection,
        }  # fmt: skip
        inner = [f"{name}.{key}" for name, group in groups.items() for key in group.model_fields]
        assert sorted(INNER_SPACE_KEYS) == sorted(inner)

    def test_readme_documents_every_key_and_no_other(self):
        def keys(section: type[Section], prefix: str) -> set[str]:
            return {prefix + key for key in section.model_fields}

        schema = keys(SpaceFile, "") | keys(BackboneSection, "backbone.") | keys(GeneSection, "layers.")
        schema |= {"overrides.layers"} | keys(RuleSection, "rules.") | keys(ConstraintSection, "constraints.")
        written = re.findall(r"^\| `([a-z_.0-9]+)` \|", README.read_text(), flags=re.MULTILINE)
        assert sorted(written) == sorted(schema | {f"{name}.yaml" for name in NAMES})
        assert set(OverrideSection.model_fields) == {"layers", *GENES}

    def test_readme_names_every_choice(self):
        text = README.read_text()
        words = [*ATTENTION, *REDUCERS, *HALLUCINATION, *STEMS]
        assert [word for word in words if f"`{word}`" not in text] == []

    def test_readme_has_every_design(self):
        section = README.read_text().split("### Seeds")[1].split("\n## ")[0]
        assert tuple(re.findall(r"^\| ([a-z_]+) \| (?!design)", section, flags=re.MULTILINE)) == DESIGNS

    def test_readme_has_every_rule(self):
        rules = re.findall(r"^\| (C\d+) \| .+ \|$", README.read_text(), flags=re.MULTILINE)
        assert rules == [f"C{n}" for n in range(1, 20)]

    def test_readme_has_the_default_of_every_rule(self):
        rows = re.findall(r"^\| `rules\.([a-z_]+)` \|[^|]+\| `?(\w+)`? \|", README.read_text(), re.MULTILINE)
        assert dict(rows) == {f.name: str(getattr(Rules(), f.name)).lower() for f in fields(Rules)}

    def test_readme_example_has_the_size_it_says(self):
        example = re.search(r"```yaml\n(.*?)```", README.read_text(), flags=re.DOTALL)
        space = parse_space(example[1], "README.md")
        assert space.size() == 11
        assert space.layers[0].num_heads == (2,)
        low, high = space.macs_range()
        unbounded = parse_space(example[1], "README.md", ["constraints.max_macs=null"]).macs_range()
        assert low == unbounded[0] < high <= 400_000 < unbounded[1]
