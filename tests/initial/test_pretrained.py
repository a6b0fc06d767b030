"""Where pretrained weights come from, what makes them fit, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from factories import backbone as small_backbone
from safetensors.torch import save_file
from small_spaces import randomise
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional

from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.backbone import Backbone
from nas.base.errors import ConfigError
from nas.initial.pretrained import initial_weights, plain_subnet
from nas.model.families.vit import Subnet

SHAPE = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7}


def backbone(**changes) -> Backbone:
    return replace(small_backbone(in_chans=3), **changes)


def vit(kind=VisionTransformer, **changes) -> VisionTransformer:
    model = kind(**{**SHAPE, **changes}).eval()
    randomise(model)
    return model


def saved(folder: Path, content, name: str = "weights.pth") -> str:
    torch.save(content, folder / name)
    return f"file:{folder / name}"


def folder_of_timm(folder: Path, model: VisionTransformer, **changes) -> str:
    shape = {name: value for name, value in SHAPE.items() if name != "num_classes"}
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": SHAPE["num_classes"],
        "model_args": {**shape, **changes},
        "pretrained_cfg": {"num_classes": SHAPE["num_classes"], "first_conv": "patch_embed.proj"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors")
    return f"local-dir:{folder}"


def images(size: int = 16, chans: int = 3) -> torch.Tensor:
    return torch.randn(4, chans, size, size, generator=torch.Generator().manual_seed(0))


def assert_same_function(weights, theirs, fixed: Backbone) -> None:
    x = images(fixed.image_size, fixed.in_chans)
    with torch.no_grad():
        assert torch.allclose(plain_subnet(weights, fixed)(x), theirs(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrap", [None, "model", "state_dict"])
def test_a_file_gives_the_saved_models_logits(tmp_path, wrap):
    theirs = vit()
    content = theirs.state_dict()
    spec = saved(tmp_path, {wrap: content, "epoch": 3} if wrap else content)
    assert_same_function(initial_weights(spec, backbone()), theirs, backbone())


def test_a_safetensors_file_in_half_precision_gives_float32_weights(tmp_path):
    theirs = vit().half()
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    weights = initial_weights(f"file:{tmp_path}/w.safetensors", backbone())
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert_same_function(weights, theirs.float(), backbone())


def test_a_folder_of_timm_gives_its_models_logits(tmp_path):
    theirs = vit()
    assert_same_function(initial_weights(folder_of_timm(tmp_path, theirs), backbone()), theirs, backbone())


@pytest.mark.parametrize(
    ("changes", "class_token"),
    [
        ({"class_token": False, "global_pool": "avg"}, False),
        ({"init_values": 0.1}, True),
        ({"no_embed_class": True}, True),
        ({"init_values": 0.1, "no_embed_class": True}, True),
    ],
    ids=["mean_pooled", "layer_scale", "class_token_without_position", "deit3"],
)
def test_other_plain_vits_are_rewritten_without_a_change_of_function(tmp_path, changes, class_token):
    theirs, fixed = vit(**changes), backbone(class_token=class_token)
    weights = initial_weights(saved(tmp_path, theirs.state_dict()), fixed)
    assert set(weights) == set(plain_subnet(weights, fixed).state_dict())
    assert_same_function(weights, theirs, fixed)


def test_a_larger_patch_reads_an_enlarged_patch_as_the_old_one_read_the_original(tmp_path):
    theirs = vit(img_size=8, patch_size=2)
    weights = initial_weights(saved(tmp_path, theirs.state_dict()), backbone())
    patches = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    enlarged = functional.interpolate(patches, (4, 4), mode="bicubic", antialias=True)
    kernel = weights["patch_embed.proj.weight"]
    assert kernel.shape == (24, 3, 4, 4)
    with torch.no_grad():
        old = functional.conv2d(patches, theirs.patch_embed.proj.weight)
    assert torch.allclose(functional.conv2d(enlarged, kernel), old, atol=1e-5, rtol=0)


def test_positions_of_another_grid_are_resampled_and_the_class_tokens_is_kept(tmp_path):
    theirs = vit(img_size=32)
    weights = initial_weights(saved(tmp_path, theirs.state_dict()), backbone())
    assert weights["pos_embed"].shape == (1, 17, 24)
    assert torch.equal(weights["pos_embed"][:, 0], theirs.pos_embed[:, 0])
    plain_subnet(weights, backbone())(images())


def test_grey_images_get_the_sum_of_the_colour_kernels(tmp_path):
    theirs = vit()
    weights = initial_weights(saved(tmp_path, theirs.state_dict()), backbone(in_chans=1))
    grey = images(chans=1)
    with torch.no_grad():
        ours = plain_subnet(weights, backbone(in_chans=1))(grey)
        assert torch.allclose(ours, theirs(grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=0)


def test_a_network_without_a_classifier_is_plain_too(tmp_path):
    theirs = vit(num_classes=0)
    weights = initial_weights(saved(tmp_path, theirs.state_dict()), backbone())
    assert_same_function(weights, theirs, backbone())


@pytest.mark.parametrize("spec", ["timm", "timm:", "hub:vit", "timm:no_such_model", "local-dir:/no/such/folder"])
def test_a_source_that_is_not_there_is_one_clear_error(spec):
    with pytest.raises(ConfigError, match=f"--init {spec}") as caught:
        initial_weights(spec, backbone())
    assert caught.value.hint


@pytest.mark.parametrize("name", ["missing.pth", "missing.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(ConfigError, match="no such file") as caught:
        initial_weights(f"file:{tmp_path / name}", backbone())
    assert str(tmp_path / name) in caught.value.message


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.npz"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, name):
    (tmp_path / name).write_text("not weights")
    with pytest.raises(ConfigError, match="--init file:") as caught:
        initial_weights(f"file:{tmp_path / name}", backbone())
    assert "state dict" in caught.value.hint


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3)], ids=["list", "numbers", "tensor"])
def test_a_checkpoint_without_tensors_by_name_is_refused(tmp_path, content):
    with pytest.raises(ConfigError, match="--init file:"):
        initial_weights(saved(tmp_path, content), backbone())


class Mischief:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(tmp_path):
    spec = saved(tmp_path, {"model": vit().state_dict(), "args": Mischief(tmp_path / "ran")})
    with pytest.raises(ConfigError, match="--init file:"):
        initial_weights(spec, backbone())
    assert not (tmp_path / "ran").exists()


def test_a_distilled_models_second_token_is_a_register_and_its_second_head_is_left_out(tmp_path):
    theirs, fixed = vit(VisionTransformerDistilled), backbone(reg_tokens=1)
    weights = initial_weights(saved(tmp_path, theirs.state_dict()), fixed)
    with torch.no_grad():
        tokens = theirs.forward_features(images())
        assert torch.allclose(plain_subnet(weights, fixed).forward_features(images()), tokens, atol=1e-5)
        assert torch.allclose(plain_subnet(weights, fixed)(images()), theirs.head(tokens[:, 0]), atol=1e-5)
    with pytest.raises(ConfigError) as caught:
        initial_weights("timm:deit_tiny_distilled_patch16_224", backbone())
    assert caught.value.hint == "--set backbone.head_dim=64 --set backbone.reg_tokens=1"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"class_token": False, "global_pool": "avg"}, "has fc_norm.weight.* lacks cls_token"),
        ({"reg_tokens": 2}, "has reg_token"),
        ({"pre_norm": True}, "has norm_pre.weight"),
        ({"qk_norm": True}, r"has blocks.0.attn.q_norm.weight.* and 3 more"),
    ],
)
def test_a_vit_with_other_parts_is_refused_with_their_names(tmp_path, changes, named):
    with pytest.raises(ConfigError, match=f"not a plain ViT with class token: {named}") as caught:
        initial_weights(saved(tmp_path, vit(**changes).state_dict()), backbone())
    keys = {"class_token": "class_token=false", "reg_tokens": "reg_tokens=2", "pre_norm": "norm_pre=true"}
    assert f"backbone.{keys.get(next(iter(changes)), 'class_token')}" in caught.value.hint


def test_convolutions_are_taken_as_they_are_given(tmp_path):
    fixed, layer = backbone(num_classes=7), {"num_tokens": 16, "num_heads": 3, "mlp_ratio": 2, "ffn_conv": True}
    trained = Subnet(fixed, Architecture(embed_dim=24, layers=(LayerChoice(**layer),) * 2)).eval()
    randomise(trained)
    spec, images = saved(tmp_path, trained.state_dict()), torch.randn(2, 3, 16, 16)
    given = initial_weights(spec, fixed)
    assert all(torch.equal(given[name], value) for name, value in trained.state_dict().items())
    with torch.no_grad():
        assert torch.equal(plain_subnet(given, fixed)(images), trained(images))
    weights = trained.state_dict()
    weights["blocks.1.mlp.dwconv.weight"] = torch.zeros(48, 1, 5, 5)
    with pytest.raises(ConfigError, match=r"is \[48, 1, 5, 5\], expected \[H, 1, 3, 3\]"):
        initial_weights(saved(tmp_path, weights), fixed)
    del weights["blocks.1.mlp.dwconv.weight"]
    with pytest.raises(ConfigError, match=r"lacks blocks.1.mlp.dwconv.weight"):
        initial_weights(saved(tmp_path, weights), fixed)


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "samvit_base_patch16"])
def test_a_model_that_is_no_plain_vit_is_refused_before_it_is_downloaded(name):
    with pytest.raises(ConfigError, match="not a plain ViT"):
        initial_weights(f"timm:{name}", backbone())


def test_heads_of_another_width_are_refused_before_the_download():
    with pytest.raises(ConfigError, match="of another kind") as caught:
        initial_weights("timm:deit_tiny_patch16_224", backbone())
    assert caught.value.hint == "--set backbone.head_dim=64"


def test_a_hub_out_of_reach_is_asked_once_and_said(monkeypatch, tmp_path):
    asked = []

    class Client:
        def head(self, url, **_):
            asked.append(url)
            raise OSError("no route")

    monkeypatch.setattr("nas.model.timm_entry.get_session", Client)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be reached, and the weights are not on this machine") as caught:
        initial_weights("timm:deit_tiny_patch16_224", backbone(head_dim=64))
    assert len(asked) == 1
    assert "leave `init` out" in caught.value.hint


def test_a_file_whose_width_is_not_whole_heads_is_refused(tmp_path):
    spec = saved(tmp_path, vit().state_dict())
    with pytest.raises(ConfigError, match="24 channels are not whole heads of 16"):
        initial_weights(spec, backbone(head_dim=16))


def test_a_model_with_plain_names_that_computes_something_else_is_refused(tmp_path):
    spec = folder_of_timm(tmp_path, vit(), act_layer="relu")
    with pytest.raises(ConfigError, match="not a plain ViT: its activation is ReLU"):
        initial_weights(spec, backbone())
