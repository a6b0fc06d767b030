"""A model of every group of timm's plain ViTs, narrow, of two layers: its weights give its numbers, or it is refused.

`benchmarks/starts.py` does that for all of them, as wide as they are.
"""

from dataclasses import replace

import pytest
import timm
import torch
from factories import backbone, plain
from small_spaces import randomise

from nas.arch.backbone import Backbone
from nas.initial.kind import BLOCKS, facts_of, has_quick_gelu, left_out, settings_for, why_not_plain
from nas.initial.plain import plain_weights
from nas.initial.pretrained import difference, start_note
from nas.model.families.vit import Subnet

NARROW = {"depth": 2, "embed_dim": 48, "num_heads": 2, "num_classes": 5}
TAKEN = {  # one of every group: what a space sets beside head_dim
    "deit_tiny_patch16_224": "",
    "deit3_small_patch16_224": "",
    "vit_base_patch16_224_miil": "",
    "vit_small_patch16_18x2_224": "",
    "deit_tiny_distilled_patch16_224": "reg_tokens=1",
    "vit_base_patch16_clip_224": "norm_pre=true norm_eps=1e-05",
    "vit_base_patch32_clip_quickgelu_224": "norm_pre=true norm_eps=1e-05 act=silu",
    "vit_base_patch16_siglip_gap_224": "class_token=false final_norm=before",
    "vit_base_patch16_siglip_224": "class_token=false final_norm=before",
    "vit_base_patch32_siglip_gap_256": "class_token=false final_norm=before act=gelu_tanh",
    "vit_so400m_patch14_siglip_gap_384": "class_token=false final_norm=before",
    "vit_betwixt_patch16_reg4_gap_256": "class_token=false reg_tokens=4",
    "vit_medium_patch16_gap_256": "class_token=false final_norm=before",
    "vit_small_patch14_reg4_dinov2": "reg_tokens=4",
    "vit_base_patch16_radio_v3": "reg_tokens=7 final_norm=none",
    "eva_large_patch14_196": "pool=avg",
}
REFUSED = {
    "aimv2_large_patch14_224": "its feed-forward is SwiGLU, with gates; its norms are RmsNorm",
    "beit3_base_patch16_224": "it has norms inside layers (attn.norm, mlp.norm)",
    "test_vit4": "its norms are RmsNorm",
    "vit_base_patch16_rpn_224": "its norms come after attention and feed-forward",
    "vit_pwee_patch16_reg1_gap_256": BLOCKS["ParallelScalingBlock"],
    "vit_dwee_patch16_reg1_gap_256": "its attention is DiffAttention",
    "vit_giant_patch14_dinov2": "its feed-forward is GluMlp, with gates",
    "vit_base_r50_s16_224": "its patches are not cut from the image but come from convolutions (HybridEmbed)",
    "eva02_tiny_patch14_224": "it is timm's Eva with rotary positions, not its VisionTransformer",
    "resnet18": "it is timm's ResNet, not its VisionTransformer",
}


@pytest.mark.parametrize("name", TAKEN)
def test_weights_of_every_group_give_its_numbers(name):
    patch, rest = int(name.partition("patch")[2][:2]), 6 if name.endswith("384") else 0
    model = timm.create_model(name, img_size=4 * patch + rest, **NARROW).eval()
    randomise(model)
    assert why_not_plain(model) == []
    plain = backbone(in_chans=3, head_dim=24)
    keys = settings_for(plain, facts := facts_of(model))
    assert " ".join(key.removeprefix("backbone.") for key in keys) == TAKEN[name]
    fixed = Backbone(**plain.to_dict() | facts)
    weights = plain_weights(name, model.state_dict(), fixed, quick_gelu=has_quick_gelu(model))
    assert difference(model, weights, fixed) < 1e-5
    assert bool(left_out(model)) == (name.endswith("siglip_224") or "distilled" in name)


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_plain_vit_computes_is_refused_with_the_reason(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert "; ".join(why_not_plain(model)) == REFUSED[name]


def test_what_a_file_does_not_say_is_said_to_be_assumed():
    assert start_note("file:w.pth", backbone(norm_eps=1e-5)) == (
        "assumed, as no file says it: heads of 8 channels, gelu, epsilon of norms 1e-05, classified is the class token"
    )
    assert "attention pooling and classifier are left out" in start_note("timm:vit_base_patch16_siglip_224", backbone())
    assert start_note("timm:deit_tiny_patch16_224", backbone()) == ""
    assert start_note("results/run-1", backbone()) == ""


def test_a_bundle_with_a_conv_stem_is_no_start():
    model = Subnet(backbone(), replace(plain(), stem="conv"))
    assert why_not_plain(model) == ["its patches are not cut from the image but come from convolutions (ConvStem)"]
    assert why_not_plain(Subnet(backbone(), plain())) == []
