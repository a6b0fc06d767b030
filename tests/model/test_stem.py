"""Stems: the laws that hold for a patch embedding hold for a stack of convolutions, and for overlapping patches."""

from dataclasses import replace

import pytest
import timm
import torch
from factories import backbone, plain, varied
from flops import flop_counter
from live_storages import tracked_peak
from small_spaces import randomise
from timm.layers import LayerNorm2d
from timm.models.pvt_v2 import OverlapPatchEmbed
from torch import nn

from nas.arch import STEMS, cost, memory
from nas.base.errors import ArchitectureError
from nas.model.families.vit import Subnet
from nas.model.stem import ConvStem, build_stem

IMAGES = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
KINDS = ("conv", "overlap")
NETWORKS = [
    replace(architecture, stem=stem) for stem in KINDS for architecture in (plain(), varied(), plain(embed_dim=17))
]
BARE = {"class_token": False, "positions": "none", "in_chans": 3}
PLAIN = {stem: replace(plain(), stem=stem) for stem in KINDS}


def built(architecture=NETWORKS[0], fixed=None, **options):
    subnet = Subnet(fixed or backbone(), architecture, **options).eval()
    randomise(subnet)
    return subnet


def on(patch, **changes):
    """Sixteen patches of so many pixels."""
    return backbone(image_size=4 * patch, patch_size=patch, **changes)


def test_a_patch_of_four_pixels_is_two_convolutions_with_a_norm_between():
    stem = ConvStem(24, backbone())
    kinds = [type(module) for module in stem]
    assert kinds == [nn.Conv2d, LayerNorm2d, nn.GELU, nn.Conv2d]
    names = [name for name, _ in built().patch_embed.named_parameters()]
    assert names == [f"proj.{i}.{part}" for i in (0, 1, 3) for part in ("weight", "bias")]


@pytest.mark.parametrize("patch", [2, 3, 4, 8])
def test_an_overlapping_stem_is_timms_of_pvt(patch):
    theirs = OverlapPatchEmbed(patch_size=2 * patch - 1, stride=patch, in_chans=3, embed_dim=24).eval()
    ours = build_stem("overlap", 24, on(patch, in_chans=3)).eval()
    randomise(theirs)
    ours.load_state_dict({name.replace("proj.", "proj.overlap."): value for name, value in theirs.state_dict().items()})
    images = torch.randn(2, 3, 4 * patch, 4 * patch)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images).flatten(1, 2))
    assert ours.norm.eps == theirs.norm.eps
    assert theirs.norm.eps != backbone().norm_eps


@pytest.mark.parametrize("options", [{}, {"class_token": False}, {"reg_tokens": 2, "norm_pre": True}, BARE])
@pytest.mark.parametrize("patch", [2, 3, 4, 8, 16])
def test_costs_are_what_torch_counts(patch, options):
    fixed = on(patch, **options)
    for architecture in NETWORKS:
        if STEMS[architecture.stem].broken(fixed):
            continue
        subnet = built(architecture, fixed)
        assert cost.params(architecture, fixed) == sum(p.numel() for p in subnet.parameters())
        with torch.device("meta"):
            there = Subnet(fixed, architecture)
        with flop_counter() as counter:
            there(torch.zeros(1, fixed.in_chans, fixed.image_size, fixed.image_size, device="meta"))
        assert counter.get_total_flops() == 2 * cost.macs(architecture, fixed)
        for count in (1, 3):
            assert tracked_peak(subnet, count) == memory.peak_activation_bytes(architecture, fixed, count)


@pytest.mark.parametrize("stem", KINDS)
@pytest.mark.parametrize("patch", [2, 4, 8])
def test_the_stem_alone_needs_the_memory_that_it_says(patch, stem):
    """Also where a later layer makes the peak."""
    fixed = on(patch)
    for width in (8, 24):
        alone = nn.Module()
        alone.backbone, alone.stem = fixed, build_stem(stem, width, fixed)
        alone.forward = alone.stem.forward
        for count in (1, 3):
            expected = dict(memory.before(width, stem, fixed, count))["patch_embed"]
            assert tracked_peak(alone, count) == 4 * expected


@pytest.mark.parametrize("patch", [2, 4, 8, 16])
def test_tokens_begin_with_the_scale_that_those_of_patches_have(patch):
    fixed, spread = on(patch, in_chans=3), {}
    images = torch.randn(8, 3, fixed.image_size, fixed.image_size, generator=torch.Generator().manual_seed(1))
    for stem in ("patch", "conv"):
        torch.manual_seed(0)
        with torch.no_grad():
            spread[stem] = build_stem(stem, 96, fixed)(images).std()
    assert 1 / 1.5 < spread["conv"] / spread["patch"] < 1.5


@pytest.mark.parametrize("stem", KINDS)
def test_images_do_not_mix_and_their_number_does_not_matter(stem):
    subnet = built(PLAIN[stem])
    with torch.no_grad():
        alone = torch.cat([subnet(image[None]) for image in IMAGES])
        assert torch.allclose(subnet(IMAGES), alone, atol=1e-5)


def test_patches_that_are_no_power_of_two_are_refused():
    with pytest.raises(ArchitectureError, match="power of two, not 3"):
        Subnet(backbone(image_size=12, patch_size=3), NETWORKS[0])
    with pytest.raises(ArchitectureError, match="patch_size of 2 or more"):
        Subnet(backbone(image_size=4, patch_size=1), PLAIN["overlap"])


@pytest.mark.parametrize("stem", KINDS)
def test_another_image_size_gives_as_many_tokens_as_patches_do(stem):
    subnet, other = (built(a, dynamic_img_size=True) for a in (PLAIN[stem], plain()))
    for size in ((16, 16), (24, 16), (32, 40)):
        images = torch.randn(2, 1, *size)
        assert subnet.embed(images).shape == other.embed(images).shape
        assert subnet(images).shape == (2, 10)
    padded = built(PLAIN[stem], dynamic_img_size=True, dynamic_img_pad=True)
    assert padded(torch.randn(2, 1, 17, 22)).shape == (2, 10)
    assert torch.equal(subnet(IMAGES), padded(IMAGES))
    subnet.set_input_size(img_size=(24, 32))
    assert subnet.pos_embed.shape[1] == 1 + 6 * 8
    assert subnet(torch.randn(2, 1, 24, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("message", "sizes"),
    [("made for patches of", {"patch_size": 8}), ("multiple of", {"img_size": 18}), ("hold no patch", {"img_size": 2})],
)
@pytest.mark.parametrize("stem", KINDS)
def test_what_a_stem_cannot_cut_is_refused(stem, message, sizes):
    with pytest.raises(ArchitectureError, match=message):
        built(PLAIN[stem]).set_input_size(**sizes)
    built(PLAIN[stem]).set_input_size(img_size=24, patch_size=4)


@pytest.mark.parametrize("stem", KINDS)
@pytest.mark.parametrize("kind", ["getter", "fx"])
def test_features_are_those_of_the_network(kind, stem):
    given = {"architecture": PLAIN[stem].to_dict(), "backbone": backbone().to_dict()}
    subnet = built(PLAIN[stem])
    features = timm.create_model("nas_vit", **given, features_only=True, feature_cls=kind).eval()
    (features.graph_module if kind == "fx" else features.model).load_state_dict(subnet.state_dict(), strict=False)
    shape = "NLC" if kind == "fx" else "NCHW"
    with torch.no_grad():
        ours = subnet.forward_intermediates(IMAGES, intermediates_only=True, output_fmt=shape)
        for own, theirs in zip(ours, features(IMAGES), strict=True):
            assert torch.equal(own, theirs[:, 1:] if kind == "fx" else theirs)


@pytest.mark.parametrize(("stem", "first"), [("conv", "0"), ("overlap", "overlap")])
def test_weights_of_another_number_of_channels_or_grid_are_adapted(tmp_path, stem, first):
    fixed = backbone(in_chans=3)
    subnet, folder = built(PLAIN[stem], fixed), str(tmp_path)
    arguments = {"architecture": PLAIN[stem].to_dict(), "backbone": fixed.to_dict()}
    subnet.pretrained_cfg = timm.get_pretrained_cfg("nas_vit").to_dict() | {
        "num_classes": 10, "input_size": (3, 16, 16), "first_conv": f"patch_embed.proj.{first}"
    }  # fmt: skip
    timm.models.save_for_hf(subnet, folder, model_args=arguments, safe_serialization=True)
    grey = timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=1).eval()
    ours, theirs = (network.get_parameter(f"patch_embed.proj.{first}.weight") for network in (grey, subnet))
    assert torch.allclose(ours, theirs.sum(1, keepdim=True))
    wide = timm.create_model(f"local-dir:{folder}", pretrained=True, img_size=(16, 32)).eval()
    assert wide(torch.zeros(1, 3, 16, 32)).shape == (1, 10)
