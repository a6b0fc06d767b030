from functools import partial

import numpy as np
import pytest
import timm
import torch
from factories import backbone, plain, varied
from flops import flop_counter
from live_storages import tracked_peak
from small_spaces import every_choice, randomise, space
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from nas.arch import cost, memory
from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.backbone import Backbone
from nas.base.errors import ArchitectureError
from nas.model.families.vit import Subnet
from nas.model.supernet import Supernet

IMAGES = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def built(architecture: Architecture, fixed: Backbone | None = None, **changes) -> Subnet:
    subnet = Subnet(fixed or backbone(), architecture, **changes).eval()
    randomise(subnet)
    return subnet


@pytest.mark.parametrize("class_token", [True, False])
def test_plain_subnet_is_timms_vision_transformer(class_token):
    theirs = VisionTransformer(
        img_size=16,
        patch_size=4,
        in_chans=1,
        num_classes=10,
        embed_dim=24,
        depth=3,
        num_heads=3,
        mlp_ratio=2,
        class_token=class_token,
        global_pool="token" if class_token else "avg",
    ).eval()
    randomise(theirs)
    ours = Subnet(backbone(class_token=class_token), plain()).eval()
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        assert torch.allclose(ours(IMAGES), theirs(IMAGES), atol=1e-5)
        tokens = theirs.forward_features(IMAGES)
        assert torch.allclose(ours.forward_features(IMAGES), tokens, atol=1e-5)
        for pre_logits in (False, True):
            head = theirs.forward_head(tokens, pre_logits=pre_logits)
            assert torch.allclose(ours.forward_head(tokens, pre_logits=pre_logits), head, atol=1e-5)
    assert ours.no_weight_decay() == set(theirs.no_weight_decay()) & {"pos_embed", "cls_token"}


OPTIONS = {
    "registers": ({"reg_tokens": 2}, {"reg_tokens": 2}),
    "averaged beside a class token": ({"pool": "avg"}, {"global_pool": "avg"}),
    "norm before the average": (
        {"class_token": False, "final_norm": "before"},
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
    ),
    "averaged with registers": (
        {"class_token": False, "reg_tokens": 3},
        {"class_token": False, "reg_tokens": 3, "global_pool": "avg"},
    ),
    "no last norm": ({"final_norm": "none"}, {"final_norm": False}),
    "CLIP": ({"norm_pre": True, "norm_eps": 1e-2}, {"pre_norm": True, "norm_layer": partial(nn.LayerNorm, eps=1e-2)}),
    "tanh": ({"act": "gelu_tanh"}, {"act_layer": "gelu_tanh"}),
    "silu": ({"act": "silu"}, {"act_layer": "silu"}),
    "no positions": (
        {"class_token": False, "positions": "none"},
        {"class_token": False, "global_pool": "avg", "pos_embed": "none"},
    ),
}
ALONE = {"class_token": True, "reg_tokens": 2, "positions": "none"}  # timm leaves such tokens out


@pytest.mark.parametrize(("ours", "theirs"), OPTIONS.values(), ids=OPTIONS)
def test_every_option_is_that_of_timm(ours, theirs):
    shape = {"img_size": 16, "patch_size": 4, "in_chans": 1, "num_classes": 10, "embed_dim": 24, "num_heads": 3}
    model = VisionTransformer(**shape, depth=3, mlp_ratio=2, **theirs).eval()
    randomise(model)
    weights = {"patch_embed.proj.bias": torch.zeros(24)} | model.state_dict()  # before a norm, timm has no bias
    fixed = backbone(**ours)
    subnet = Subnet(fixed, plain()).eval()
    subnet.load_state_dict(weights)
    with torch.no_grad():
        assert torch.allclose(subnet(IMAGES), model(IMAGES), atol=1e-5)
        tokens = model.forward_features(IMAGES)
        assert torch.allclose(subnet.forward_features(IMAGES), tokens, atol=1e-5)
        assert torch.allclose(subnet.forward_head(tokens), model.forward_head(tokens), atol=1e-5)


@pytest.mark.parametrize("ours", [*(ours for ours, _ in OPTIONS.values()), ALONE], ids=[*OPTIONS, "prefix alone"])
def test_every_option_keeps_the_laws(ours):
    fixed = backbone(**ours)
    searched = space(every_choice(), backbone=fixed)
    supernet = Supernet(searched).eval()
    randomise(supernet)
    sampled = searched.sample(np.random.default_rng(0))
    for architecture in (sampled, varied()):
        subnet = built(architecture, fixed)
        assert cost.params(architecture, fixed) == sum(p.numel() for p in subnet.parameters())
        with flop_counter() as counter:
            subnet(IMAGES[:1])
        assert counter.get_total_flops() == 2 * cost.macs(architecture, fixed)
        for count in (1, 3):
            assert tracked_peak(subnet, count) == memory.peak_activation_bytes(architecture, fixed, count)
    values = {"architecture": sampled.to_dict(), "backbone": fixed.to_dict()}
    loaded = timm.create_model("nas_vit", **values, num_classes=10, in_chans=1).eval()
    loaded.load_state_dict(supernet.extract(sampled).state_dict())
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES), supernet(IMAGES, sampled))
        assert torch.equal(supernet.extract(sampled).eval()(IMAGES), supernet(IMAGES, sampled))


def test_token_counts_follow_the_architecture():
    subnet, seen = built(varied()), []
    for block in subnet.blocks:
        block.register_forward_hook(lambda *hooked: seen.append(hooked[2][0].shape[1]))
    subnet(IMAGES)
    assert seen == [1 + layer.num_tokens for layer in varied().layers]


def test_maps_are_shared_and_not_copied_nor_detached():
    layer = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=1)
    shared = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=1, attention="shared")
    subnet, maps = built(Architecture(embed_dim=16, layers=(layer, layer, shared, shared, layer))), []
    for block in subnet.blocks:
        block.register_forward_hook(lambda *hooked: maps.append(hooked[2][1]))
    subnet(IMAGES)
    assert [m is None for m in maps] == [True, False, False, False, True]
    assert maps[2].maps is maps[1].maps
    assert maps[3].maps is maps[1].maps
    assert maps[1].maps.requires_grad
    assert maps[1].logits is None  # nobody derives maps from them


def test_consumers_teach_the_providers_queries():
    layer = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=1)
    shared = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=1, attention="shared")
    subnet = built(Architecture(embed_dim=16, layers=(layer, shared)))
    with torch.no_grad():
        subnet.blocks[0].attn.proj.weight.zero_()  # all that the provider's maps reach now is the consumer
    subnet(IMAGES).sum().backward()
    assert subnet.blocks[0].attn.qkv.weight.grad[:32].abs().max() > 0


def test_batches_do_not_mix_images():
    subnet = built(varied())
    with torch.no_grad():
        alone = torch.cat([subnet(image[None]) for image in IMAGES])
        assert torch.allclose(subnet(IMAGES), alone, atol=1e-5)


def test_drop_path_rises_with_depth_and_acts_in_training_alone():
    subnet = built(plain(), drop_path=0.5)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in subnet.blocks]
    assert rates == [0.0, 0.25, 0.5]
    with torch.no_grad():
        assert torch.equal(subnet(IMAGES), built(plain())(IMAGES))
        torch.manual_seed(0)
        subnet.train()
        assert not torch.equal(subnet(IMAGES), subnet(IMAGES))


def test_initial_weights_let_operators_start_neutral():
    subnet = Subnet(backbone(), varied())
    subnet.init_weights()
    assert subnet.blocks[2].attn.hallucinate.gain.tolist() == [1.0]
    assert not subnet.blocks[3].reducer.conv.weight.any()
    assert not subnet.blocks[4].attn.hallucinate.mix.any()
    assert not subnet.blocks[4].attn.hallucinate.conv.weight.any()
    assert not subnet.blocks[7].reducer.gamma.any()
    assert not subnet.blocks[6].attn.linear_conv.weight.any()
    mlp = subnet.blocks[5].mlp
    assert 0.015 < (mlp.up.weight @ mlp.down.weight).std() < 0.025  # as timm's one matrix
    assert 0.01 < subnet.blocks[3].attn.static_map.std() < 0.03
    assert not subnet.blocks[0].attn.qkv.bias.any()
    assert 0.01 < subnet.pos_embed.std() < 0.03


def test_classifier_can_be_replaced_and_removed():
    subnet = built(plain())
    subnet.reset_classifier(4)
    assert subnet(IMAGES).shape == (3, 4)
    assert subnet.backbone.num_classes == subnet.num_classes == subnet.get_classifier().out_features == 4
    subnet.reset_classifier(0)
    assert torch.equal(subnet(IMAGES), subnet.forward_head(subnet.forward_features(IMAGES), pre_logits=True))
    assert Subnet(backbone(num_classes=0), plain())(IMAGES).shape == (3, 24)


@pytest.mark.parametrize(
    "layer",
    [
        LayerChoice(num_tokens=25, num_heads=2, mlp_ratio=1),
        LayerChoice(num_tokens=4, num_heads=2, mlp_ratio=1),
        LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=1, reducer="pool"),
    ],
)
def test_first_layer_must_fit_the_patches(layer):
    with pytest.raises(ArchitectureError, match="reducer is present exactly where num_tokens falls"):
        Subnet(backbone(), Architecture(embed_dim=16, layers=(layer,)))


def test_timm_builds_it_from_plain_values():
    values = {"architecture": varied().to_dict(), "backbone": backbone().to_dict()}
    model = timm.create_model("nas_vit", **values, num_classes=7)
    assert isinstance(model, Subnet)
    assert model.architecture == varied()
    assert model.eval()(IMAGES).shape == (3, 7)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("needs architecture=", {"architecture": None}),
        ("needs backbone=", {"backbone": "deit"}),
        ("speed", {"speed": 3}),
    ],
)
def test_timm_arguments_that_cannot_be_are_refused(message, changes):
    values = {"architecture": varied().to_dict(), "backbone": backbone().to_dict()}
    with pytest.raises(TypeError, match=message):
        timm.create_model("nas_vit", **{**values, **changes})
