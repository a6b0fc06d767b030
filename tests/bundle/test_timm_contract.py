"""A bundle is a timm model: timm's own ViT and exported networks side by side, over its interface and every operator.

The plain network has timm's weights, so it has to give timm's values; the others have to give what has timm's shapes,
with the token counts of their own layers.
"""

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from bundles import CLASS_TOKEN, EVERY_OPERATOR, MEAN_POOL, OPERATORS_MEAN_POOLED, export, layer, subnet_of
from timm.models.vision_transformer import VisionTransformer
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from nas.arch.architecture import Architecture
from nas.base.errors import ArchitectureError
from nas.model.families.vit import Subnet

pytestmark = pytest.mark.filterwarnings("ignore:strides that are no powers of two")

PLAIN = Architecture(embed_dim=16, layers=(layer(64),) * 3)
ON_MAPS = Architecture(  # every operator that has maps and keeps the tokens
    embed_dim=16,
    layers=(
        layer(64),
        layer(64, attention="shared"),
        layer(64, attention="static"),
        layer(64, hallucination_ratio=0.5, hallucination="copy"),
        layer(64, hallucination_ratio=0.5, hallucination="mix_conv"),
        layer(64, attention="shared", hallucination_ratio=0.5, hallucination="mix", ffn_rank=0.5),
    ),
)
NETWORKS = {
    "plain": (PLAIN, CLASS_TOKEN),
    "plain mean": (PLAIN, MEAN_POOL),
    "on maps": (ON_MAPS, CLASS_TOKEN),
    "every": (EVERY_OPERATOR, CLASS_TOKEN),
    "every mean": (OPERATORS_MEAN_POOLED, MEAN_POOL),
}
PLAINS, OTHERS = ("plain", "plain mean"), ("on maps", "every", "every mean")
WITH_MAPS = {"every": [0, 2, 8], "every mean": [0, 1, 4]}  # layers with a feature map


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of every network."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, (architecture, backbone) in NETWORKS.items():
        export(subnet_of(architecture, backbone), folder / name)
    return folder


def ours(folder: Path, name: str, **arguments: Any) -> Any:
    return timm.create_model(f"local-dir:{folder / name}", pretrained=True, **arguments).eval()


def timms(name: str, like: nn.Module | None = None, **arguments: Any) -> Any:
    """timm's ViT of the same size, through the same factory."""
    architecture, backbone = NETWORKS[name]
    size = {
        "img_size": backbone.image_size,
        "patch_size": backbone.patch_size,
        "num_classes": backbone.num_classes,
        "class_token": backbone.class_token,
        "global_pool": "token" if backbone.class_token else "avg",
    }
    size |= {"embed_dim": architecture.embed_dim, "depth": architecture.depth, "num_heads": 2, "mlp_ratio": 2}
    model = timm.create_model("vit_tiny_patch16_224", **{**size, **arguments}).eval()
    if like is not None:
        model.load_state_dict(like.state_dict())
    return model


def images(rows: int = 32, columns: int | None = None, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, rows, columns or rows, generator=generator)


def same(one: Any, other: Any) -> None:
    """Equal values in equal containers."""
    with torch.no_grad():
        torch.testing.assert_close(one, other)


ARGUMENTS: tuple[dict[str, Any], ...] = (
    {"drop_rate": 0.0},
    {"drop_rate": 0.3, "drop_path_rate": 0.2, "pos_drop_rate": 0.1, "proj_drop_rate": 0.1},
    {"attn_drop_rate": 0.0, "patch_drop_rate": 0.0, "drop_block_rate": None, "bn_momentum": None, "scriptable": False},
    {"num_classes": 4},
    {"num_classes": 0},
    {"num_classes": -1},
    {"reg_tokens": 0, "no_embed_class": False, "qkv_bias": True, "pos_embed": "learn"},
    {"in_chans": 1},
    {"global_pool": ""},
    {"global_pool": "avg"},
    {"global_pool": "avgmax"},
    {"global_pool": "max", "num_classes": 0},
    {"global_pool": "avg", "fc_norm": False},
    {"img_size": 48},
    {"img_size": (24, 40)},
    {"img_size": [32, 32], "dynamic_img_size": True},
    {"patch_size": 8},
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"device": "cpu", "dtype": torch.float64},
)


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_create_model_takes_the_arguments_of_timms_vit(name: str, arguments: dict[str, Any], folder: Path) -> None:
    model = ours(folder, name, **arguments)
    reference = timms(name, model if name in PLAINS else None, **arguments)
    x = images(*model.patch_embed.img_size, channels=model.in_chans).to(arguments.get("dtype", torch.float32))
    with torch.no_grad():
        found, expected = model(x), reference(x)
        if name in PLAINS:
            torch.testing.assert_close(found, expected)
        elif arguments.get("global_pool") == "":
            assert (found.shape[0], found.shape[2]) == (expected.shape[0], expected.shape[2])
        else:
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert (model.num_classes, model.in_chans, model.global_pool) == (
        max(reference.num_classes, 0), reference.in_chans, reference.global_pool,
    )  # fmt: skip
    assert model.patch_embed.grid_size == reference.patch_embed.grid_size
    assert model.dynamic_img_size == reference.dynamic_img_size
    assert [type(getattr(model, part)) for part in ("norm", "fc_norm")] == [
        type(nn.Identity()) if isinstance(getattr(reference, part), nn.Identity) else nn.LayerNorm
        for part in ("norm", "fc_norm")
    ]


def test_dropout_is_where_timms_is_and_only_in_training(folder: Path) -> None:
    rates = {"drop_rate": 0.3, "drop_path_rate": 0.2, "pos_drop_rate": 0.1, "proj_drop_rate": 0.15}
    model = ours(folder, "plain", **rates)
    reference = timms("plain", model, **rates)
    assert (model.head_drop.p, model.pos_drop.p) == (0.3, 0.1)
    for block, its in zip(model.blocks, reference.blocks, strict=True):
        paths = [getattr(of, "drop_prob", 0.0) for of in (block.drop_path, its.drop_path1)]
        assert paths[0] == pytest.approx(paths[1])
        assert (block.proj_drop.p, block.mlp.drop1.p, block.mlp.drop2.p) == (0.15, 0.15, 0.15)
        assert its.attn.proj_drop.p == 0.15
    x = images()
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        assert not torch.equal(model.train()(x), model(x))
    with pytest.raises(TypeError, match=r"attn_drop_rate=0\.1, patch_drop_rate=0\.5"):
        ours(folder, "plain", attn_drop_rate=0.1, patch_drop_rate=0.5)


@pytest.mark.parametrize("pool", ["token", "map", "prr", "nonsense"])
def test_a_pooling_that_cannot_be_is_refused(pool: str, folder: Path) -> None:
    with pytest.raises(ArchitectureError, match="global_pool"):
        ours(folder, "plain mean", global_pool=pool)
    with pytest.raises(ArchitectureError, match="global_pool"):
        ours(folder, "every mean").reset_classifier(3, pool)


def test_what_says_again_what_the_network_is_changes_nothing_and_anything_else_is_refused(folder: Path) -> None:
    same_again = {"embed_dim": 16, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0, "class_token": True, "qk_norm": False}
    same(ours(folder, "plain", **same_again)(images()), ours(folder, "plain")(images()))
    for name, value in {"embed_dim": 24, "depth": 2, "num_heads": 1, "class_token": False, "qk_norm": True}.items():
        with pytest.raises(TypeError, match=f"nas_vit cannot take {name}={value}"):
            ours(folder, "plain", **{name: value})
    with pytest.raises(TypeError, match="num_heads=2"):
        ours(folder, "every", num_heads=2)


@pytest.mark.parametrize("size", [0, -4, (0, 8), (8,), (8, 8, 8), "48", 48.0, (48, None)], ids=str)
def test_what_is_no_size_is_refused_in_words(size: Any, folder: Path) -> None:
    with pytest.raises(ArchitectureError, match="a size is a positive whole number of pixels"):
        ours(folder, "plain", img_size=size)
    with pytest.raises(ArchitectureError, match="a size is a positive whole number of pixels"):
        ours(folder, "every").set_input_size(size)
    with pytest.raises(ArchitectureError, match="in_chans must be at least 1, got 0"):
        ours(folder, "plain", in_chans=0)


RESETS: tuple[tuple[Any, ...], ...] = ((0, ""), (0,), (-1,), (4,), (4, ""), (4, "avg"), (0, "max"), (5, "avgmax"))


@pytest.mark.parametrize("reset", RESETS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_classifier_is_reset_as_in_timm(name: str, reset: tuple[Any, ...], folder: Path) -> None:
    model = ours(folder, name)
    reference = timms(name, model if name in PLAINS else None)
    model.reset_classifier(*reset)
    reference.reset_classifier(*reset)
    if name in PLAINS:
        reference.load_state_dict(model.state_dict())
    x = images()
    with torch.no_grad():
        tokens, pooled = model.forward_features(x), model.forward_head(model.forward_features(x), pre_logits=True)
        expected = reference.forward_head(reference.forward_features(x), pre_logits=True)
        if name in PLAINS:
            same([model(x), tokens, pooled], [reference(x), reference.forward_features(x), expected])
        elif model.global_pool:
            assert (model(x).shape, pooled.shape) == (reference(x).shape, expected.shape)
        else:
            assert (model(x).shape[2], pooled.shape[1]) == (reference(x).shape[2], tokens.shape[1])
    assert (model.num_classes, model.global_pool) == (max(reference.num_classes, 0), reference.global_pool)
    assert type(model.get_classifier()) is type(reference.get_classifier())
    assert tuple(model.head_hidden_size for _ in "a") == (reference.head_hidden_size,)


CALLS: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...] = (
    ((2,), {}),
    ((2, True), {}),
    ((2, True, True), {}),
    (([0], False, True, True, "NLC", True), {}),
    (([1, 0], False, False, False, "NCHW", False, True), {}),
    (([0, 2], True, False, False, "NCHW", True, True), {}),
    ((None, True, True, False, "NLC", False, True, None, False), {}),
    ((), {"indices": [-1, 0], "return_prefix_tokens": True, "output_fmt": "NLC"}),
    ((), {"indices": 1, "stop_early": True, "intermediates_only": True}),
    ((1,), {"is_causal": True}),
    ((1,), {"attn_mask": torch.rand(65, 65, generator=torch.Generator().manual_seed(0)) < 0.8}),
    ((1,), {"attn_mask": torch.rand(2, 1, 65, 65, generator=torch.Generator().manual_seed(0)), "output_fmt": "NLC"}),
)


@pytest.mark.parametrize("grad_checkpointing", [False, True])
@pytest.mark.parametrize("call", range(len(CALLS)))
def test_intermediates_are_given_as_timm_gives_them(call: int, grad_checkpointing: bool, folder: Path) -> None:
    arguments, named = CALLS[call]
    model = ours(folder, "plain")
    reference = timms("plain", model)
    model.set_grad_checkpointing(grad_checkpointing)
    found, expected = (of.forward_intermediates(images(), *arguments, **named) for of in (model, reference))
    assert type(found) is type(expected)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", OTHERS)
def test_intermediates_of_other_operators_have_timms_shapes(name: str, folder: Path) -> None:
    model, reference = ours(folder, name), timms(name)
    layers = WITH_MAPS.get(name, [0, 1, 2, 3, 4, 5])
    named: dict[str, Any] = {"indices": layers, "return_prefix_tokens": True, "output_dict": True}
    with torch.no_grad():
        found, expected = (of.forward_intermediates(images(), **named) for of in (model, reference))
        assert found.keys() == expected.keys()
        assert torch.equal(found["image_features"], model.forward_features(images()))
        for i, mine, its in zip(layers, found["image_intermediates"], expected["image_intermediates"], strict=True):
            assert mine.shape[:2] == its.shape[:2]
            assert mine.shape[2] * mine.shape[3] == model.architecture.layers[i].num_tokens
        for mine, its in zip(*(of.get("image_intermediates_prefix", []) for of in (found, expected)), strict=True):
            assert mine.shape == its.shape


def test_a_mask_is_applied_by_every_operator_that_has_maps_and_refused_by_name_elsewhere(folder: Path) -> None:
    model, x = ours(folder, "on maps"), images()
    everything, alone = torch.ones(65, 65, dtype=torch.bool), torch.eye(65, dtype=torch.bool)
    with torch.no_grad():
        same(model(x, everything), model(x))
        same(model(x, attn_mask=torch.zeros(1, 1, 65, 65)), model(x))
        with pytest.raises(ArchitectureError, match="attn_mask and is_causal together"):
            model(x, everything, True)
        same(model(x, None, True), model(x, torch.ones(65, 65, dtype=torch.bool).tril()))
        changed = x.clone()
        changed[:, :, 16:] += 1  # what no token sees but those below
        tokens, others = (model.forward_features(of, alone) for of in (x, changed))
        same(tokens[:, :33], others[:, :33])
        assert not torch.allclose(tokens[:, 33:], others[:, 33:])
    with pytest.raises(ArchitectureError, match=r"layers 3, 6, 8, 9 reduce tokens or keys, or have no maps"):
        ours(folder, "every")(x, is_causal=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_pruned_and_features_chosen_as_in_timm(name: str, folder: Path) -> None:
    chosen = WITH_MAPS.get(name, [2, 0])[:2]
    model, reference = ours(folder, name), timms(name)
    assert model.prune_intermediate_layers(chosen) == reference.prune_intermediate_layers(chosen) == chosen
    assert len(model.blocks) == len(reference.blocks) == max(chosen) + 1
    assert (model.num_classes, model.global_pool) == (reference.num_classes, reference.global_pool) == (0, "")
    features = ours(folder, name, features_only=True, out_indices=chosen)
    its = timms(name, features_only=True, out_indices=chosen)
    with torch.no_grad():
        for mine, of_timm in zip(features(images()), its(images()), strict=True):
            assert mine.shape[:2] == of_timm.shape[:2]
    assert features.feature_info.channels() == its.feature_info.channels()
    assert features.feature_info.module_name() == its.feature_info.module_name()
    if name in PLAINS:
        assert features.feature_info.reduction() == its.feature_info.reduction()


def test_dino_s_interface_gives_the_same(folder: Path) -> None:
    model = ours(folder, "plain")
    reference = timms("plain", model)
    for named in ({}, {"n": [0, 2], "reshape": True}, {"n": 2, "return_prefix_tokens": True, "norm": True}):
        same(*(of.get_intermediate_layers(images(), **named) for of in (model, reference)))


@pytest.mark.parametrize("size", [48, (24, 40), (16, 16)], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_another_input_size_set_at_once_or_later_or_by_the_images_is_one_network(
    name: str, size: Any, folder: Path, tmp_path: Path
) -> None:
    rows, columns = size if isinstance(size, tuple) else (size, size)
    x = images(rows, columns)
    at_once = ours(folder, name, img_size=size)
    later, by_images = ours(folder, name), ours(folder, name, dynamic_img_size=True)
    later.set_input_size((rows, columns))
    with torch.no_grad():
        expected = at_once(x)
        same(later(x), expected)
        same(by_images(x), expected)
        same(by_images(images()), ours(folder, name)(images()))
        if name in PLAINS:
            same(timms(name, at_once, img_size=size)(x), expected)
            same(timms(name, ours(folder, name), dynamic_img_size=True)(x), expected)
    with pytest.raises(AssertionError, match="doesn't match model"):
        later(images())
    timm.models.save_for_hf(later, str(tmp_path / "b"), safe_serialization=True)
    again = ours(tmp_path, "b")
    with torch.no_grad():
        assert torch.equal(again(x), later(x)), "what timm saves again has the new size"
    again = timm.create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True, img_size=32).eval()
    assert again(images()).shape == later(x).shape


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_checkpoints_change_no_gradient(name: str, folder: Path) -> None:
    models = [ours(folder, name, dynamic_img_size=True).train() for _ in range(2)]
    models[1].set_grad_checkpointing(True)
    for model in models:  # two sizes before the backward pass, as in multi-crop training
        (model(images()).square().sum() + model(images(16, 24)).square().sum()).backward()
    for (path, one), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert one.grad is not None, path
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("name", NETWORKS)
def test_layer_decay_groups_the_parameters_as_in_timm(name: str, folder: Path) -> None:
    model, reference = ours(folder, name), timms(name)
    assert model.group_matcher() == reference.group_matcher()
    scales = []
    for of in (model, reference):
        groups = create_optimizer_v2(of, opt="adamw", lr=1.0, weight_decay=0.05, layer_decay=0.5).param_groups
        by_parameter = {id(p): group for group in groups for p in group["params"]}
        scales.append(
            {
                n: (by_parameter[id(p)]["lr_scale"], by_parameter[id(p)]["weight_decay"])
                for n, p in of.named_parameters()
            }
        )
    shared = scales[0].keys() & scales[1].keys()
    assert len(shared) > 4 * len(model.blocks)
    assert {n: scales[0][n] for n in shared} == {n: scales[1][n] for n in shared}
    assert {"pos_embed", "cls_token"} <= model.no_weight_decay()


def test_every_method_of_timms_vit_is_there_with_its_parameters() -> None:
    left_out = {"fix_init_weight", "load_pretrained"}  # of weights that no bundle has
    for name, method in inspect.getmembers(VisionTransformer, inspect.isfunction):
        if name.startswith("_") or name in left_out or method.__qualname__.split(".")[0] != "VisionTransformer":
            continue
        wanted = list(inspect.signature(method).parameters.values())
        given = list(inspect.signature(getattr(Subnet, name)).parameters.values())[: len(wanted)]
        if name == "init_weights":
            wanted, given = wanted[:2], given[:2]
        assert [p.default for p in given] == [p.default for p in wanted], name
        assert [p.name for p in given[2:]] == [p.name for p in wanted[2:]], name
        assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in given), name


def test_attributes_that_others_read_are_timms(folder: Path) -> None:
    model = ours(folder, "plain")
    reference = timms("plain", model)
    names = (
        "num_classes", "in_chans", "global_pool", "num_features", "embed_dim", "head_hidden_size", "num_prefix_tokens",
        "num_reg_tokens", "has_class_token", "no_embed_class", "pool_include_prefix", "dynamic_img_size",
        "grad_checkpointing", "attn_pool", "feature_info",
    )  # fmt: skip
    assert {n: getattr(model, n) for n in names} == {n: getattr(reference, n) for n in names}
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in reference.named_parameters()]
    assert copy.deepcopy(model).state_dict().keys() == reference.state_dict().keys()
