"""Files of other libraries: the names of torchvision from its own model, the others as their files have them."""

import re

import pytest
import torch
from factories import backbone
from small_spaces import randomise
from timm.models.vision_transformer import VisionTransformer
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

from nas.base.errors import ConfigError
from nas.initial.names import timm_names
from nas.initial.plain import plain_weights
from nas.initial.pretrained import initial_weights, plain_subnet

FIXED = backbone(in_chans=3)
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def vit(**changes) -> VisionTransformer:
    shape = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7}
    model = VisionTransformer(**{**shape, **changes}).eval()
    randomise(model)
    return model


def as_transformers(weights, *, around: str = "vit.") -> dict[str, torch.Tensor]:
    """By the names of `ViTForImageClassification`."""
    found = {}
    for name, value in weights.items():
        if ".attn.qkv." in name:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[
                    around + name.replace("blocks", "encoder.layer").replace("attn.qkv", f"attention.attention.{part}")
                ] = third
            continue
        new = name
        for old, other in {
            r"^patch_embed\.proj": "embeddings.patch_embeddings.projection",
            r"^pos_embed": "embeddings.position_embeddings",
            r"^cls_token": "embeddings.cls_token",
            r"^reg_token": "embeddings.register_tokens",
            r"^blocks": "encoder.layer",
            r"attn\.proj": "attention.output.dense",
            r"mlp\.fc1": "intermediate.dense",
            r"mlp\.fc2": "output.dense",
            r"norm1": "layernorm_before",
            r"norm2": "layernorm_after",
            r"^norm\.": "layernorm.",
            r"^head": "classifier",
        }.items():
            new = re.sub(old, other, new)
        found[new if new.startswith("classifier") else around + new] = value
    return found


def as_clip(weights) -> dict[str, torch.Tensor]:
    """By the names of OpenAI's CLIP, with a part of its other half."""
    found = {"logit_scale": torch.ones(()), "transformer.resblocks.0.ln_1.weight": torch.ones(8)}
    for name, value in weights.items():
        new = name
        for old, other in {
            "patch_embed.proj": "conv1", "pos_embed": "positional_embedding", "cls_token": "class_embedding",
            "blocks": "transformer.resblocks", "attn.qkv.": "attn.in_proj_", "attn.proj": "attn.out_proj",
            "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "norm_pre": "ln_pre", "norm1": "ln_1", "norm2": "ln_2",
        }.items():  # fmt: skip
            new = new.replace(old, other)
        new = re.sub(r"^norm\.", "ln_post.", new)
        if name == "head.weight":
            found["visual.proj"] = value.T
        elif name != "head.bias":
            found[f"visual.{new}"] = {"cls_token": value.flatten(), "pos_embed": value[0]}.get(name, value)
    return found


def assert_same(found, theirs, fixed=FIXED) -> None:
    with torch.no_grad():
        assert torch.allclose(plain_subnet(plain_weights("w", found, fixed), fixed)(IMAGES), theirs(IMAGES), atol=1e-5)


def test_torchvision():
    theirs = TorchvisionViT(16, 4, 2, 3, 24, 48, num_classes=7).eval()
    randomise(theirs)
    assert_same(theirs.state_dict(), theirs)


@pytest.mark.parametrize("around", ["vit.", ""])
def test_transformers(around):
    theirs = vit()
    assert_same(as_transformers(theirs.state_dict(), around=around), theirs)


def test_clip():
    theirs = vit(pre_norm=True)
    torch.nn.init.zeros_(theirs.head.bias)
    assert_same(as_clip(theirs.state_dict()), theirs, backbone(in_chans=3, norm_pre=True))


@pytest.mark.parametrize(
    ("key", "prefix"), [("teacher", "backbone."), ("student", "module.backbone."), ("state_dict", "module.")]
)
def test_dino_and_wrappers(tmp_path, key, prefix):
    theirs = vit(num_classes=0)
    weights = {prefix + name: value for name, value in theirs.state_dict().items()}
    heads = prefix.removesuffix("backbone.")
    weights |= {f"{heads}head.mlp.0.weight": torch.ones(3, 3), f"{heads}head.last_layer.weight_v": torch.ones(3, 3)}
    torch.save({key: weights, "epoch": 3}, tmp_path / "w.pth")
    found = initial_weights(f"file:{tmp_path / 'w.pth'}", FIXED)
    with torch.no_grad():
        assert torch.allclose(plain_subnet(found, FIXED)(IMAGES), theirs(IMAGES), atol=1e-5)


def test_mae_without_its_decoder():
    theirs = vit(num_classes=0)
    decoder = {"mask_token": torch.ones(1, 1, 8), "decoder_pos_embed": torch.ones(1, 17, 8)}
    decoder |= {"decoder_blocks.0.norm1.weight": torch.ones(8), "decoder_embed.weight": torch.ones(8, 24)}
    assert_same(theirs.state_dict() | decoder, theirs)


def test_dinov2_with_registers_that_have_no_positions():
    theirs = vit(reg_tokens=4, init_values=0.1, no_embed_class=True)
    weights = theirs.state_dict()
    weights["register_tokens"] = weights.pop("reg_token")
    weights["pos_embed"] = torch.cat([torch.zeros(1, 1, 24), weights["pos_embed"]], dim=1)
    assert_same(weights | {"mask_token": torch.ones(1, 24)}, theirs, backbone(in_chans=3, reg_tokens=4))


def test_own_names_stay_and_unknown_ones_too():
    weights = vit().state_dict() | {"extra": torch.ones(1)}
    assert timm_names(weights) == weights


@pytest.mark.parametrize("value", [torch.ones(()), torch.ones(3, 1), torch.ones(2, dtype=torch.int64), torch.ones(0)])
@pytest.mark.parametrize("write", [as_transformers, as_clip, dict])
def test_whatever_a_file_holds_is_one_clear_error(write, value):
    weights = write(vit(pre_norm=write is as_clip).state_dict())
    for name in weights:
        if weights[name].shape != value.shape and not name.startswith(("logit", "transformer.")):
            with pytest.raises(ConfigError, match="--init w: not a plain ViT"):
                plain_weights("w", weights | {name: value}, backbone(in_chans=3, norm_pre=write is as_clip))


def test_a_parallel_layer_that_lacks_a_part_is_left_for_its_name_to_be_said():
    weights = {"pos_embed": torch.ones(1, 1, 4), "blocks.0.attns.0.norm.weight": torch.ones(4)}
    assert timm_names(weights) == weights
