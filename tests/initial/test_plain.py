"""Whatever a file of weights holds, one message says all that keeps it from being a plain ViT."""

import math
from dataclasses import replace

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from nas.arch.backbone import Backbone
from nas.base.errors import ConfigError
from nas.initial.plain import depth_of, plain_weights

BACKBONE = Backbone(image_size=16, patch_size=4, head_dim=8)
SHAPE = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7}


def state(**changes):
    return dict(VisionTransformer(**{**SHAPE, **changes}).state_dict())


def refusal(weights, backbone=BACKBONE):
    with pytest.raises(ConfigError, match="--init w: ") as caught:
        plain_weights("w", weights, backbone)
    assert caught.value.hint
    return caught.value.message


def with_name(old, new):
    weights = state()
    weights[new] = weights.pop(old)
    return weights


@pytest.mark.parametrize(
    "number", ["x", "-1", "", "1e3", "00", "999999999999999999999", "1000", "\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_a_layer_without_a_number_is_named_at_once(number):
    message = refusal(with_name("blocks.1.norm1.weight", f"blocks.{number}.norm1.weight"))
    assert f"has blocks.{number}.norm1.weight" in message
    assert "lacks blocks.1.norm1.weight" in message


def test_a_far_layer_is_told_by_the_first_names_that_are_missing():
    message = refusal(with_name("blocks.1.norm1.weight", "blocks.999.norm1.weight"))
    assert "lacks blocks.1.norm1.weight, blocks.10." in message
    assert len(message) < 600


@pytest.mark.parametrize("name", sorted(set(state()) - {"head.weight", "head.bias"}))
def test_every_part_is_missed(name):
    weights = state()
    del weights[name]
    assert f"lacks {name}" in refusal(weights)


@pytest.mark.parametrize(("kept", "lost"), [("weight", "bias"), ("bias", "weight")])
def test_half_a_classifier_is_none(kept, lost):
    weights = state()
    del weights[f"head.{lost}"]
    assert f"lacks head.{lost}" in refusal(weights)


@pytest.mark.parametrize("name", sorted(state()))
@pytest.mark.parametrize(
    "change",
    [torch.Tensor.flatten, lambda x: x[None], lambda x: x[..., :-1], lambda x: x[:0], lambda _: torch.zeros(())],
    ids=["flat", "one more dimension", "narrow", "empty", "a number"],
)
def test_every_wrong_shape_is_told_with_the_right_one(name, change):
    weights = state()
    changed = change(weights[name])
    weights[name] = changed
    if changed.shape == state()[name].shape or (name == "head.bias" and changed.shape == (7,)):
        pytest.skip("a vector is flat")
    message = refusal(weights)
    assert "expected [" in message
    if name not in ("head.bias", "norm.weight"):  # of two that differ, the first is taken to be right
        assert name.rpartition(".")[0] in message or name in message


def test_positions_are_there_where_the_space_has_them_and_nowhere_else():
    bare, weights = replace(BACKBONE, positions="none"), state()
    with pytest.raises(ConfigError, match="has pos_embed") as refused:
        plain_weights("w", weights, bare)
    assert "--set backbone.positions=learned" in refused.value.hint
    del weights["pos_embed"]
    assert plain_weights("w", weights, bare).keys() == weights.keys()
    with pytest.raises(ConfigError, match="lacks pos_embed") as refused:
        plain_weights("w", weights, BACKBONE)
    assert "--set backbone.positions=none" in refused.value.hint


@pytest.mark.parametrize("patches", [3, 15, 18, 20])
def test_positions_of_no_square_grid_are_refused(patches):
    weights = state()
    weights["pos_embed"] = torch.zeros(1, patches, 24)
    assert "pos_embed is [1, " in refusal(weights)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_what_is_not_finite_is_named(value, dtype):
    weights = {name: tensor.to(dtype) for name, tensor in state().items()}
    weights["blocks.0.mlp.fc1.bias"][3] = value
    assert "blocks.0.mlp.fc1.bias holds NaN or infinity" in refusal(weights)


def test_what_float32_cannot_hold_is_named():
    weights = state() | {"norm.bias": torch.full((24,), 1e300, dtype=torch.float64)}
    assert "norm.bias holds NaN or infinity" in refusal(weights)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_weights_that_are_no_floating_point_are_named(dtype):
    weights = state() | {"norm.bias": torch.ones(24, dtype=dtype)}
    assert f"norm.bias ({str(dtype).removeprefix('torch.')}) is not of floating point" in refusal(weights)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_point_becomes_float32(dtype):
    given = {name: tensor.to(dtype) for name, tensor in state().items()}
    found = plain_weights("w", given, BACKBONE)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert all(torch.equal(value, given[name].float()) for name, value in found.items())


def test_all_that_is_wrong_is_told_at_once():
    weights = state() | {"extra": torch.ones(1), "norm.bias": torch.ones(3), "pos_embed": torch.ones(1, 7, 24)}
    del weights["cls_token"]
    message = refusal(weights)
    for words in (
        "has extra and lacks cls_token",
        "norm.bias is [3], expected [D]",
        "pos_embed is [1, 7, 24]",
        "D is 24",
    ):
        assert words in message


@pytest.mark.parametrize("given", [{1: torch.ones(1)}, {"a": 3}, {"a": None, "b": [1]}])
def test_what_is_no_state_dict_is_refused(given):
    assert "not a state dict" in refusal(given)


def test_nothing_has_no_layers():
    assert depth_of({}) == 0
    assert "lacks cls_token" in refusal({})


def test_a_model_of_many_layers_is_plain():
    assert depth_of(plain_weights("w", state(depth=12), BACKBONE)) == 12
