"""PVT v2 of components of the plain ViT: timm's logits with timm's weights, and the costs that are known of it."""

import re

import pytest
import timm
import torch
from small_spaces import randomise

from nas.arch import cost
from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.backbone import Backbone
from nas.model.families.vit import Subnet

STAGES = ((3136, 1, 8), (784, 2, 8), (196, 5, 4), (49, 8, 4))
"""Patch tokens at 224 pixels, heads, MLP ratio."""
FIXED = {"image_size": 224, "patch_size": 4, "class_token": False, "final_norm": "before"} | {
    "positions": "none", "key_tokens": 49, "ffn_conv": True
}  # fmt: skip


def pyramid(width: int, depths: tuple[int, ...]) -> Architecture:
    layers = []
    for stage, ((tokens, heads, ratio), depth) in enumerate(zip(STAGES, depths, strict=True)):
        first = {"reducer": "embed", "embed_dim": heads * width} if stage else {}
        layers += [
            LayerChoice(num_tokens=tokens, num_heads=heads, mlp_ratio=ratio, **({} if i else first))
            for i in range(depth)
        ]
    return Architecture(embed_dim=width, stem="overlap", layers=tuple(layers))


def our_names(weights: dict[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """Weights of timm's PVT v2 with so many layers a stage by the names of a `Subnet`."""
    found = {}
    for name, value in weights.items():
        stage, _, rest = name.removeprefix("stages.").partition(".")
        if name.startswith("stages."):
            first, following = depth * int(stage), depth * (int(stage) + 1)
            end = f"blocks.{following}.reducer.embed_before" if stage != "3" else "norm"
            rest = re.sub(r"^blocks\.(\d+)", lambda found, first=first: f"blocks.{first + int(found[1])}", rest)
            rest = re.sub(r"^norm\b", end, rest)
            rest = rest.replace("downsample.proj", f"blocks.{first}.reducer.embed")
            rest = rest.replace("downsample.norm", f"blocks.{first}.reducer.embed_after")
            name = rest.replace("attn.sr.", "attn.keys.conv.").replace("attn.norm.", "attn.keys.norm.")
        found[name.replace("patch_embed.proj", "patch_embed.proj.overlap")] = value
    for name in [name for name in found if ".attn.q." in name]:
        rows = [found.pop(name), found.pop(name.replace(".q.", ".kv."))]
        found[name.replace(".q.", ".qkv.")] = torch.cat(rows)
    return found


@pytest.mark.parametrize("size", [(224, 224), (160, 256)])
def test_components_together_are_timms_pvt(size):
    theirs = timm.create_model("pvt_v2_b0", num_classes=10).eval()
    randomise(theirs)
    fixed = Backbone(**FIXED, num_classes=10, head_dim=32)
    ours = Subnet(fixed, pyramid(32, (2, 2, 2, 2)), dynamic_img_size=True).eval()
    ours.load_state_dict(our_names(theirs.state_dict(), 2))
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "width", "depths", "giga_macs"),
    [
        ("pvt_v2_b0", 32, (2, 2, 2, 2), 0.566),
        ("pvt_v2_b1", 64, (2, 2, 2, 2), 2.108),
        ("pvt_v2_b2", 64, (3, 4, 6, 3), 4.027),
    ],
)
def test_costs_are_those_of_pvt(name, width, depths, giga_macs):
    fixed, architecture = Backbone(**FIXED, head_dim=width), pyramid(width, depths)
    with torch.device("meta"):
        theirs = timm.create_model(name)
    assert cost.params(architecture, fixed) == sum(p.numel() for p in theirs.parameters())
    assert cost.macs(architecture, fixed) / 1e9 == pytest.approx(giga_macs, abs=5e-4)
