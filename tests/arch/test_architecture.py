import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from factories import backbone, plain, random_architecture, varied

from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.backbone import Backbone
from nas.base.errors import ArchitectureError


def layer(**changes) -> LayerChoice:
    return LayerChoice(**{"num_tokens": 16, "num_heads": 2, "mlp_ratio": 2.0, **changes})


def of(*layers: LayerChoice) -> Architecture:
    return Architecture(embed_dim=24, layers=layers)


POOLED = {"num_tokens": 4, "reducer": "pool"}
HALF = {"hallucination_ratio": 0.5}
SHARED = {"attention": "shared"}
ILLEGAL_LAYERS = {
    "pool leaves a square number of tokens, got 10 (C10)": {"num_tokens": 10, "reducer": "pool"},
    "conv_pool leaves a square number of tokens, got 6 (C10)": {"num_tokens": 6, "reducer": "conv_pool"},
    "num_tokens must be at least 1, got 0": {"num_tokens": 0},
    "num_heads must be at least 1, got 0": {"num_heads": 0},
    "mlp_ratio must be positive and finite, got 0": {"mlp_ratio": 0},
    "mlp_ratio must be positive and finite, got inf": {"mlp_ratio": float("inf")},
    "mlp_ratio must be positive and finite, got nan": {"mlp_ratio": float("nan")},
    "hallucination_ratio must be in [0, 1), got 1": {"hallucination_ratio": 1},
    "hallucination_ratio must be in [0, 1), got -0.5": {"hallucination_ratio": -0.5},
    "hallucination_ratio 0.5 needs dynamic or shared attention, got static (C6)": {**HALF, "attention": "static"},
    "hallucination_ratio 0.5 needs dynamic or shared attention, got linear (C6)": {**HALF, "attention": "linear"},
    "ffn_rank must be above 0 and at most 1, got 0": {"ffn_rank": 0},
    "ffn_rank must be above 0 and at most 1, got 1.5": {"ffn_rank": 1.5},
    "ffn_rank must be above 0 and at most 1, got nan": {"ffn_rank": float("nan")},
    "'softmax' is not a valid AttentionKind": {"attention": "softmax"},
    "'merge' is not a valid Reducer": {"reducer": "merge"},
    "'ghost' is not a valid Hallucination": {"hallucination": "ghost"},
    "could not convert string to float: 'half'": {"hallucination_ratio": "half"},
    "cannot convert float infinity to integer": {"num_tokens": float("inf")},
}
ILLEGAL_SEQUENCES = {
    "layer 0: shared attention without a dynamic provider at this token count (C1, C2)": (layer(attention="shared"),),
    "layer 1: shared attention without a dynamic provider at this token count (C1, C2)": (
        layer(attention="static"),
        layer(attention="shared"),
    ),
    "layer 1: shared attention without a dynamic provider": (layer(), layer(**POOLED, attention="shared")),
    "layer 2: shared attention without a dynamic provider": (
        layer(),
        layer(attention="static"),
        layer(attention="shared"),
    ),
    "layer 3: shared attention without a dynamic provider": (
        layer(),
        layer(attention="shared"),
        layer(attention="linear"),
        layer(attention="shared"),
    ),
    "layer 1: 1 heads derived from a provider that derives 0 (C6)": (layer(), layer(**SHARED, **HALF)),
    "layer 1: 1 heads derived from a provider that derives 2 (C6)": (
        layer(num_heads=3, hallucination_ratio=0.7),
        layer(num_heads=3, **SHARED, **HALF),
    ),
    "layer 2: pool needs the grid that an earlier glad dissolved (C10)": (
        layer(),
        layer(num_tokens=9, reducer="glad"),
        layer(num_tokens=4, reducer="pool"),
    ),
    "layer 1: 3 heads share the maps of 2 (C3)": (layer(), layer(attention="shared", num_heads=3)),
    "layer 2: 3 heads share the maps of 2 (C3)": (
        layer(),
        layer(attention="shared"),
        layer(attention="shared", num_heads=3),
    ),
    "layer 1: num_tokens grows from 4 to 16 (C11)": (layer(num_tokens=4), layer()),
    "layer 1: a reducer is present exactly where num_tokens falls": (layer(), layer(num_tokens=4)),
    "layer 2: a reducer is present exactly where num_tokens falls": (layer(), layer(), layer(reducer="pool")),
    "layer 0: mlp_ratio 0.3 x embed_dim 24 is not whole": (layer(mlp_ratio=0.3),),
    "layer 0: ffn_rank 0.3 x embed_dim 24 is not whole": (layer(ffn_rank=0.3),),
    "layer 0: ffn_rank 1e-09 x embed_dim 24 is not whole and positive": (layer(ffn_rank=1e-9),),
    "layer 0: mlp_ratio 1e-12 x embed_dim 24 is not whole and positive": (layer(mlp_ratio=1e-12),),
    "needs at least one layer": (),
}


@pytest.mark.parametrize(("message", "changes"), ILLEGAL_LAYERS.items())
def test_illegal_layer_choice_is_refused_by_its_rule(message, changes):
    with pytest.raises(ArchitectureError) as error:
        layer(**changes)
    assert message in error.value.message


@pytest.mark.parametrize(("message", "layers"), ILLEGAL_SEQUENCES.items())
def test_illegal_sequence_is_refused_by_its_rule(message, layers):
    with pytest.raises(ArchitectureError) as error:
        of(*layers)
    assert message in error.value.message


def test_every_broken_rule_is_named_at_once():
    with pytest.raises(ArchitectureError) as error:
        layer(num_tokens=0, num_heads=0, mlp_ratio=-1)
    assert all(gene in error.value.message for gene in ("num_tokens", "num_heads", "mlp_ratio"))
    with pytest.raises(ArchitectureError) as error:
        Architecture(embed_dim=0, layers=(layer(attention="shared"), layer(num_tokens=25)))
    assert all(rule in error.value.message for rule in ("(C1, C2)", "(C11)", "embed_dim must be at least 1"))


class TestContext:
    """What a layer's network and cost depend on beside its own choice."""

    def test_a_provider_exports_to_every_layer_that_shares(self):
        chain = of(layer(), layer(), layer(**SHARED), layer(**SHARED), layer(attention="linear"))
        contexts = [chain.context(i, backbone()) for i in range(5)]
        assert [c.exports_maps for c in contexts] == [False, True, False, False, False]
        assert [c.exports_maps or c.exports_logits for c in contexts] == [False, True, False, False, False]
        assert not any(c.exports_logits for c in contexts)

    @pytest.mark.parametrize(
        ("consumers", "maps", "logits"),
        [
            ([{}], True, False),
            ([HALF], False, True),
            ([HALF, {}], True, True),
            ([{}, HALF], True, True),
            ([HALF, HALF], False, True),
            ([], False, False),
        ],
    )
    def test_maps_are_exported_as_they_are_and_logits_to_derive_anew(self, consumers, maps, logits):
        chain = of(layer(**HALF), *(layer(**SHARED, **changes) for changes in consumers), layer())
        context = chain.context(0, backbone())
        assert (context.exports_maps, context.exports_logits) == (maps, logits)

    def test_tokens_arrive_from_the_layer_before_or_the_image(self):
        fewer = of(layer(**POOLED), layer(num_tokens=4), layer(num_tokens=3, reducer="glad"))
        assert [fewer.context(i, backbone()).tokens_before for i in range(3)] == [16, 4, 4]

    def test_a_glad_dissolves_the_grid_for_good(self):
        pooled = of(layer(), layer(**POOLED), layer(num_tokens=4))
        assert all(pooled.context(i, backbone()).on_grid for i in range(3))
        gathered = of(layer(), layer(num_tokens=4, reducer="glad"), layer(num_tokens=4))
        assert [gathered.context(i, backbone()).on_grid for i in range(3)] == [True, False, False]


@pytest.mark.parametrize(
    ("heads", "ratio", "hallucinated"),
    [(3, 0.5, 1), (2, 0.5, 1), (4, 0.75, 3), (1, 0.5, 0), (2, 0.4, 0), (3, 0.99, 2), (10, 0.1, 1), (4, 0.0, 0)],
)
def test_hallucinated_heads_are_whole_and_one_stays_real(heads, ratio, hallucinated):
    choice = layer(num_heads=heads, hallucination_ratio=ratio)
    assert (choice.num_hallucinated, choice.num_real) == (hallucinated, heads - hallucinated)
    assert choice.hallucination_ratio == hallucinated / heads
    assert choice.hallucination is ("copy" if hallucinated else None)


def test_one_network_has_one_genotype():
    for one, other in [
        (layer(num_heads=3, hallucination_ratio=0.5), layer(num_heads=3, hallucination_ratio=0.34)),
        (layer(hallucination="mix_conv"), layer()),
        (layer(num_heads=1, hallucination_ratio=0.5, hallucination="mix_conv"), layer(num_heads=1)),
        (layer(mlp_ratio=2, num_tokens=np.int64(16)), layer(mlp_ratio=2.0)),
        (layer(attention="dynamic"), layer(attention="dynamic")),
        (layer(ffn_rank=0.75), layer()),  # 2 / (2 + 1) saves nothing already (C14)
        (layer(mlp_ratio=0.5, ffn_rank=0.5), layer(mlp_ratio=0.5, ffn_rank=1)),
        (layer(attention="static", hallucination="mix"), layer(attention="static")),
        (layer(attention="linear", hallucination="mix"), layer(attention="linear")),
    ]:
        assert one == other
        assert of(one).digest == of(other).digest
    provider, plainly = layer(num_heads=3, **HALF), layer(num_heads=3, **SHARED)
    anew = layer(num_heads=3, **SHARED, hallucination_ratio=0.34)
    assert of(provider, anew) == of(provider, layer(num_heads=3, **SHARED, hallucination_ratio=1 / 3))
    different = [
        of(layer(**HALF)),
        of(layer(**HALF, hallucination="mix")),
        of(layer(**HALF, hallucination="mix_conv")),
        of(layer(ffn_rank=0.5)),
        of(layer(ffn_rank=0.25)),
        of(layer()),
        of(provider, plainly),
        of(provider, anew),
    ]
    assert len({a.digest for a in different}) == len(set(different)) == len(different)


@pytest.mark.parametrize(
    ("mlp_ratio", "ffn_rank", "kept"),
    [(4, 0.8, 1.0), (4, 0.75, 0.75), (4, 1, 1.0), (3, 0.75, 1.0), (3, 0.625, 0.625), (1, 0.5, 1.0), (1, 0.25, 0.25)],
)
def test_a_rank_that_saves_nothing_is_none(mlp_ratio, ffn_rank, kept):
    """Whole: mlp_ratio x D x D weights; factors: ffn_rank x (mlp_ratio + 1) x D x D (C14)."""
    assert layer(mlp_ratio=mlp_ratio, ffn_rank=ffn_rank).ffn_rank == kept
    saves = ffn_rank * (mlp_ratio + 1) < mlp_ratio
    assert saves == (kept < 1)


def test_genes_at_their_default_are_not_in_the_digest():
    """So that a new gene leaves the digests of old architectures as they were."""
    assert of(layer()).digest == "0140a3f7718a"


def test_json_round_trip():
    rng = np.random.default_rng(0)
    for architecture in [plain(), varied(), *(random_architecture(rng) for _ in range(60))]:
        again = Architecture.from_json(architecture.to_json())
        assert again == architecture
        assert hash(again) == hash(architecture)
        assert again.digest == architecture.digest


def test_json_is_canonical_and_leaves_defaults_out():
    architecture = Architecture(embed_dim=np.int64(24), layers=[layer()])
    assert architecture.to_json() == (
        '{"embed_dim":24,"layers":[{"attention":"dynamic","mlp_ratio":2.0,"num_heads":2,"num_tokens":16}]}'
    )
    assert len(architecture.digest) == 12


def test_different_architectures_have_different_digests():
    rng = np.random.default_rng(1)
    distinct = {random_architecture(rng) for _ in range(200)}
    assert len({architecture.digest for architecture in distinct}) == len(distinct) > 160


def test_digest_of_every_operator_stays():
    assert varied().digest == "8df807d15479"


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_digest_is_the_same_in_every_process(hash_seed):
    code = "from factories import varied; print(varied().digest)"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.strip() == varied().digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "architecture"),
        ("3", "architecture"),
        ('{"layers": []}', "at least one layer|'embed_dim' is missing"),
        ('{"embed_dim": 24}', "'layers' is missing"),
        ('{"embed_dim": 24, "layers": [], "speed": 1, "color": 2}', "unknown field 'color', 'speed'"),
        ('{"embed_dim": 24, "layers": [{"num_tokens": 16, "num_heads": 2, "mlp_ratio": 2, "rank": 1}]}', "rank"),
        ('{"embed_dim": 24, "layers": [{"num_tokens": 16, "num_heads": 2}]}', "mlp_ratio"),
        ('{"embed_dim": 24, "layers": ["dynamic"]}', "architecture"),
        ('{"embed_dim": "wide", "layers": []}', "wide"),
        ('{"embed_dim": Infinity, "layers": []}', "Infinity is not a number"),
    ],
)
def test_damaged_json_is_refused_with_its_reason(text, message):
    with pytest.raises(ArchitectureError, match=message):
        Architecture.from_json(text)


def test_hidden_dim_and_rank():
    architecture = varied()
    assert [architecture.hidden_dim(i) for i in range(9)] == [48, 48, 72, 48, 48, 48, 48, 48, 48]
    assert [architecture.rank(i) for i in range(9)] == [None] * 5 + [12, None, 6, None]
    assert architecture.layers[3].reducer == "conv_pool"


def test_backbone_counts_tokens():
    fixed = Backbone(image_size=224, patch_size=16)
    assert (fixed.num_patches, fixed.num_prefix_tokens) == (196, 1)
    assert backbone(class_token=False).num_prefix_tokens == 0
    assert Backbone(**json.loads(json.dumps(fixed.to_dict()))) == fixed


def test_impossible_backbone_is_refused():
    with pytest.raises(ArchitectureError, match="image_size 30 is not a multiple of patch_size 4"):
        backbone(image_size=30)
    with pytest.raises(ArchitectureError, match="patch_size must be at least 1, got 0; head_dim must be"):
        backbone(patch_size=0, head_dim=-1)
    with pytest.raises(
        ArchitectureError, match="image_size must be a whole number, got '16'; num_classes must be at least 0"
    ):
        backbone(image_size="16", num_classes=-1)
    with pytest.raises(ArchitectureError, match="class_token must be true or false, got 'no'"):
        backbone(class_token="no")


def test_the_stem_is_told_only_where_it_is_no_patch_embedding():
    conv = replace(plain(), stem="conv")
    assert conv.to_dict()["stem"] == "conv"
    assert "stem" not in plain().to_dict()
    assert Architecture.from_json(conv.to_json()) == conv != plain()
    assert conv.digest != plain().digest
    for stem in ("pool", 3, ["conv"]):
        with pytest.raises(ArchitectureError, match="stem must be one of patch, conv"):
            replace(plain(), stem=stem)
