"""PVT v2 is the plain ViT with components: timm's weights give timm's logits (law 2) at timm's costs."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import PyramidVisionTransformerV2

from nas.arch import cost
from nas.arch.architecture import Architecture
from nas.arch.backbone import Backbone
from nas.base.errors import ConfigError
from nas.initial.pretrained import initial_weights
from nas.initial.pvt import from_pvt, pvt_facts, pvt_subnet, pvt_weights
from nas.model.supernet import Supernet
from nas.space.space import read_space

IMAGENET = Backbone(image_size=224, patch_size=4)


def random_pvt(name: str) -> PyramidVisionTransformerV2:
    """timm's network with random weights of which none is where it starts."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(std=0.3)
    return model


def backbone_of(model: PyramidVisionTransformerV2) -> Backbone:
    return replace(IMAGENET, **pvt_facts(model.state_dict(), IMAGENET))


@pytest.mark.parametrize("name", ["pvt_v2_b0", pytest.param("pvt_v2_b1", marks=pytest.mark.slow)])
def test_weights_of_timm_give_its_logits_at_any_size_with_its_macs_and_parameters(name):
    model = random_pvt(name)
    own = pvt_subnet(from_pvt(model.state_dict()), backbone_of(model))
    assert cost.params(own.architecture, own.backbone) == sum(p.numel() for p in model.parameters())
    assert cost.macs(own.architecture, own.backbone) == {"pvt_v2_b0": 566_065_664, "pvt_v2_b1": 2_108_355_584}[name]
    with torch.no_grad():
        for rows, columns in ((224, 224), (160, 256)):
            images = torch.randn(1, 3, rows, columns)
            own.set_input_size((rows, columns))
            torch.testing.assert_close(own(images), model(images), atol=1e-6, rtol=1e-6)


SIZES = {"b0": 0.566, "b1": 2.108, "b2": 4.027, "b3": 6.897, "b4": 10.101, "b5": 11.717}


@pytest.mark.parametrize(("name", "macs"), [(f"pvt_v2_{size}", macs) for size, macs in SIZES.items()])
def test_costs_are_those_of_timms_networks(name, macs):
    with torch.device("meta"):
        model = timm.create_model(name)
    own = pvt_subnet(from_pvt(model.state_dict()), backbone_of(model))
    assert cost.params(own.architecture, own.backbone) == sum(p.numel() for p in model.parameters())
    assert cost.macs(own.architecture, own.backbone) / 1e9 == pytest.approx(macs, abs=5e-4)


@pytest.mark.parametrize(
    "name", ["patch_embed.proj.weight", "stages.1.downsample.norm.bias", "stages.3.blocks.1.attn.q.bias"]
)
def test_weights_that_are_not_whole_or_no_numbers_are_refused_by_name(name):
    with torch.device("meta"):
        weights = timm.create_model("pvt_v2_b0").state_dict()
    without = {key: value for key, value in weights.items() if key != name}
    with pytest.raises(ConfigError, match=f"it lacks {name}"):
        pvt_weights("file:x", without, IMAGENET)
    with pytest.raises(ConfigError, match=f"{name} are no numbers"):
        pvt_weights("file:x", weights | {name: torch.tensor([float("nan")])}, IMAGENET)


@pytest.mark.slow
def test_a_supernet_that_starts_from_it_has_it_as_its_largest_network(tmp_path):
    model, space = random_pvt("pvt_v2_b1"), read_space("pvt_v2_b1")
    save_file(model.state_dict(), tmp_path / "pvt.safetensors")
    weights = initial_weights(f"file:{tmp_path / 'pvt.safetensors'}", space.backbone)
    supernet, images = Supernet(space).eval(), torch.randn(1, 3, 224, 224)
    missing = supernet.load_timm(weights)
    assert {name.split(".")[2] for name in missing} == {"attn", "mlp", "reducer"}
    assert {name.split(".")[1] for name in missing if ".reducer." in name} == {"3", "5", "7"}  # where tokens never fall
    with torch.no_grad():
        torch.testing.assert_close(supernet.extract(space.largest())(images), model(images), atol=1e-6, rtol=1e-6)


# MACs and parameters with half of the heads derived as copies, and feed-forwards of half the rank, over those without.
SAVED = {"pvt_v2_b0": (14.9, 13.4), "pvt_v2_b1": (16.0, 14.0), "pvt_v2_b2": (16.9, 14.7)}


@pytest.mark.parametrize("name", SAVED)
def test_half_of_the_heads_and_of_the_rank_save_what_was_calculated_for_timms_networks(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    fixed = backbone_of(model)
    plain = pvt_subnet(from_pvt(model.state_dict()), fixed).architecture
    layers = (replace(la, hallucination_ratio=0.5, hallucination="copy", ffn_rank=0.5) for la in plain.layers)
    small = Architecture(embed_dim=plain.embed_dim, stem="overlap", layers=tuple(layers))
    saved = [100 * (1 - amount(small, fixed) / amount(plain, fixed)) for amount in (cost.macs, cost.params)]
    assert saved == pytest.approx(SAVED[name], abs=0.05)


def test_the_paper_on_this_backbone_is_a_space_of_its_sizes():
    space = read_space("hmhsa_cffn_pvt")
    assert (space.size(), space.macs_range(), space.params_range()) == (
        1_600_000_000, (1_564_139_632, 2_108_355_584), (11_045_814, 14_009_000),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["pvt_v2_b1", "hmhsa_cffn_pvt"])
def test_the_largest_network_of_a_space_is_the_plain_one(name):
    largest = read_space(name).largest()
    assert {(la.attention, la.num_hallucinated, la.ffn_rank) for la in largest.layers} == {("dynamic", 0, 1.0)}
    assert largest.widths == (64, 64, 128, 128, 320, 320, 512, 512)


def test_what_is_none_or_of_another_kind_is_refused_by_name():
    with torch.device("meta"):
        pooled = timm.create_model("pvt_v2_b2_li").state_dict()
        plain = timm.create_model("pvt_v2_b0").state_dict()
    with pytest.raises(ConfigError, match=r"no PVT v2 that a search knows: keys of stages.0.blocks.0 are pooled"):
        pvt_weights("file:x", pooled, IMAGENET)
    with pytest.raises(ConfigError, match="the backbone of the search space is of another kind") as error:
        pvt_weights("file:x", plain, IMAGENET)
    assert "backbone.class_token=false" in str(error.value.hint)
    with pytest.raises(ConfigError, match=r"no PVT v2 that a search knows: it has stages.0.blocks.0.gamma"):
        pvt_weights("file:x", plain | {"stages.0.blocks.0.gamma": torch.zeros(1)}, IMAGENET)
