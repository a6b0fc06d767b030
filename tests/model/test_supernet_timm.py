"""Law 2: a timm model's weights give that model's logits."""

from dataclasses import replace

import pytest
import torch
from small_spaces import every_choice, randomise, space
from timm.models.vision_transformer import VisionTransformer

from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.backbone import Backbone
from nas.base.errors import CheckpointError
from nas.model.supernet import Supernet
from nas.space.domain import LayerDomain
from nas.space.space import SearchSpace


def images(batch_size: int) -> torch.Tensor:
    return torch.randn(batch_size, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def timm_vit(class_token: bool = True, **changes) -> VisionTransformer:
    fixed = {"img_size": 32, "patch_size": 4, "embed_dim": 64, "depth": 3, "num_heads": 2, "num_classes": 10}
    pool = "token" if class_token else "avg"
    model = VisionTransformer(**{**fixed, **changes}, class_token=class_token, global_pool=pool).eval()
    randomise(model)
    return model


def vit_space(class_token: bool = True, **changes) -> SearchSpace:
    domain = every_choice(num_tokens=(64, 16), num_heads=(1, 2), mlp_ratio=(1.0, 4.0))
    fixed = Backbone(image_size=32, patch_size=4, num_classes=10, head_dim=32, class_token=class_token)
    return space(domain, backbone=replace(fixed, **changes), embed_dim=(32, 64), depth=(2, 3))


def plain_largest() -> Architecture:
    return Architecture(embed_dim=64, layers=(LayerChoice(num_tokens=64, num_heads=2, mlp_ratio=4),) * 3)


@pytest.mark.parametrize("class_token", [True, False], ids=["class_token", "mean_pooled"])
def test_largest_plain_architecture_with_timms_weights_gives_timms_logits(class_token):
    theirs, searched = timm_vit(class_token), vit_space(class_token)
    supernet = Supernet(searched).eval()
    missing = supernet.load_timm(theirs.state_dict())
    assert all(name.split(".")[2:4] != ["attn", "qkv"] for name in missing)
    assert {name.split(".")[3].split("_")[0] for name in missing} == {
        *("hallucinate", "linear", "static"),
        *("conv", "queries", "gamma", "norm"),
        *("down", "up", "dwconv"),
    }
    x = images(5)
    with torch.no_grad():
        assert torch.allclose(supernet(x, plain_largest()), theirs(x), atol=1e-5, rtol=0)


def test_plain_supernet_has_timms_parameters():
    searched = vit_space()
    plain = LayerDomain(num_tokens=(64,), num_heads=(2,))
    supernet = Supernet(replace(searched, embed_dim=(64,), depth=(3,), layers=(plain,) * 3))
    assert {name: p.shape for name, p in supernet.state_dict().items()} == {
        name: p.shape for name, p in timm_vit().state_dict().items()
    }


def test_smaller_model_fills_the_first_channels_and_heads():
    theirs = timm_vit(embed_dim=32, num_heads=1, depth=2)
    supernet = Supernet(vit_space()).eval()
    supernet.load_timm(theirs.state_dict())
    first = Architecture(embed_dim=32, layers=(LayerChoice(num_tokens=64, num_heads=1, mlp_ratio=4),) * 2)
    x = images(3)
    with torch.no_grad():
        assert torch.allclose(supernet(x, first), theirs(x), atol=1e-5, rtol=0)


def test_positions_of_another_grid_are_resampled_and_another_classifier_is_left_out():
    theirs = timm_vit(img_size=48, num_classes=7)
    supernet = Supernet(vit_space())
    head = supernet.head.weight.detach().clone()
    missing = supernet.load_timm(theirs.state_dict())
    assert {"head.weight", "head.bias"} <= set(missing)
    assert torch.equal(supernet.head.weight, head)
    assert torch.equal(supernet.pos_embed[:, 0], theirs.pos_embed[:, 0])
    assert torch.allclose(supernet.pos_embed[:, 1:].mean(), theirs.pos_embed[:, 1:].mean(), atol=0.05)


def test_weights_that_do_not_fit_are_all_named_and_nothing_is_loaded():
    weights = timm_vit(embed_dim=96, num_heads=3, depth=4, patch_size=8).state_dict()
    supernet = Supernet(vit_space())
    before = {name: p.clone() for name, p in supernet.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        supernet.load_timm(weights)
    for words in (
        "patch_embed.proj.weight: (96, 3, 8, 8) does not fit into (64, 3, 4, 4)",
        "cls_token: (1, 1, 96) does not fit into (1, 1, 64)",
        "blocks.0.attn.qkv.weight: (288, 96) does not fit into (192, 64)",
        "blocks.3.norm1.weight: not a weight of this supernet",
    ):
        assert words in error.value.message
    assert error.value.hint
    assert all(torch.equal(before[name], p) for name, p in supernet.state_dict().items())


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("pos_embed: (1, 64, 64) is not 1 class token and a square grid", {"pos_embed": torch.zeros(1, 64, 64)}),
        ("pos_embed: (65, 64) is not", {"pos_embed": torch.zeros(65, 64)}),
        ("blocks.0.attn.qkv.weight: (64, 64)", {"blocks.0.attn.qkv.weight": torch.zeros(64, 64)}),
        ("blocks.1.ls1.gamma: not a weight", {"blocks.1.ls1.gamma": torch.zeros(64)}),
    ],
)
def test_damaged_weights_are_named(message, changes):
    with pytest.raises(CheckpointError) as error:
        Supernet(vit_space()).load_timm(timm_vit().state_dict() | changes)
    assert message in error.value.message


def test_class_token_model_does_not_fit_a_mean_pooled_space():
    with pytest.raises(CheckpointError) as error:
        Supernet(vit_space(class_token=False)).load_timm(timm_vit().state_dict())
    for name in ("pos_embed", "cls_token", "norm.weight"):
        assert f"{name}: " in error.value.message


def test_a_trained_vit_fills_the_patch_stem_and_a_conv_stem_is_told_as_missing():
    both = replace(vit_space(), stem=("patch", "conv"))
    supernet = Supernet(both).eval()
    missing = supernet.load_timm(timm_vit().state_dict())
    assert {name for name in missing if "patch_embed" in name} == {
        f"patch_embed.proj.{i}.{kind}" for i in (0, 1, 3) for kind in ("weight", "bias")
    }
    x = images(3)
    with torch.no_grad():
        assert torch.allclose(supernet(x, plain_largest()), timm_vit()(x), atol=1e-5, rtol=0)
    with pytest.raises(CheckpointError, match=r"patch_embed\.proj\.weight: the space has no patch stem to start from"):
        Supernet(replace(both, stem=("conv",))).load_timm(timm_vit().state_dict())
