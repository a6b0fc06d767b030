"""Exported bundles in detectors and segmentation networks of others, at sizes that the search did not see."""

from dataclasses import replace

import pytest
import timm
import torch
from bundles import CLASS_TOKEN, export, layer, subnet_of
from torch import nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from nas.arch.architecture import Architecture
from nas.base.errors import ArchitectureError
from nas.dense import SimplePyramid

NETWORKS = {
    "plain": Architecture(embed_dim=24, layers=(layer(64),) * 4),
    "pooled": Architecture(
        embed_dim=24,
        layers=(
            layer(64),
            layer(64, attention="static"),
            layer(16, reducer="pool"),
            layer(16, hallucination_ratio=0.5, hallucination="mix_conv", ffn_rank=0.5),
        ),
    ),
    "odd": Architecture(
        embed_dim=24, layers=(layer(64), layer(36, reducer="conv_pool"), layer(16, reducer="glad"), layer(16))
    ),
    "two": Architecture(embed_dim=24, layers=(layer(64), layer(16, reducer="pool"))),
    "pyramid": Architecture(
        embed_dim=16,
        stem="conv",
        layers=(
            layer(64),
            layer(16, reducer="pool", embed_dim=24),
            layer(4, reducer="conv_pool", embed_dim=32),
            layer(1, reducer="pool", embed_dim=48),
        ),
    ),
}
"""At 32 pixels with patches of 4: strides 4; 4 and 8; 4, 16/3 and 8; 4 and 8; 4, 8, 16 and 32."""
PVT = replace(CLASS_TOKEN, class_token=False, final_norm="before", positions="none", key_tokens=4)
STAGES = Architecture(
    embed_dim=16,
    stem="overlap",
    layers=(
        layer(64, ffn_conv=True),
        layer(64, attention="shared", ffn_conv=True),
        layer(16, reducer="embed", embed_dim=24, ffn_conv=True),
        layer(16, hallucination_ratio=0.5, hallucination="copy", ffn_rank=0.5, ffn_conv=True),
        layer(4, reducer="embed", embed_dim=32, ffn_conv=True),
        layer(1, reducer="embed", embed_dim=48, ffn_conv=True),
    ),
)
"""A network after PVT v2, of four stages of strides 4, 8, 16 and 32."""
SIZES = ((64, 64), (64, 96))
STEPS = 8


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Where timm finds the bundle of a network."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, architecture in NETWORKS.items():
        export(subnet_of(architecture, CLASS_TOKEN), folder / name)
    export(subnet_of(STAGES, PVT), folder / "pvt")
    return lambda name: f"local-dir:{folder / name}"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def features(source, name, **changes):
    return timm.create_model(source(name), pretrained=True, features_only=True, dynamic_img_size=True, **changes)


def fall(model, loss_of, may_lack=()):
    """Train a few steps: the loss falls, and every parameter has a gradient."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=2e-3)
    losses = []
    for _ in range(STEPS):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    lacking = [n for n, p in model.named_parameters() if p.grad is None and not n.startswith(may_lack)]
    assert lacking == []
    assert min(losses[-2:]) < 0.9 * losses[0], losses


class Pyramid(nn.Module):
    """torchvision's pyramid over maps of several strides."""

    out_channels = 32

    def __init__(self, body):
        super().__init__()
        self.body, self.pyramid = body, FeaturePyramidNetwork(body.feature_info.channels(), 32)

    def forward(self, images):
        return self.pyramid({str(i): found for i, found in enumerate(self.body(images))})


def detector(kind, backbone, size, levels):
    anchors = AnchorGenerator(tuple((8 * 2**i,) for i in range(levels)), ((0.5, 1.0, 2.0),) * levels)
    sizes = {"min_size": min(size), "max_size": max(size), "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    if kind == "RetinaNet":
        return RetinaNet(backbone, 3, anchor_generator=anchors, **sizes)
    head = {"box_head": TwoMLPHead(32 * 49, 32), "box_predictor": FastRCNNPredictor(32, 3)}
    maps = [str(i) for i in range(min(levels, 4))]
    few = {f"rpn_{order}_nms_top_n_{mode}": 50 for order in ("pre", "post") for mode in ("train", "test")}
    head["box_roi_pool"] = MultiScaleRoIAlign(maps, 7, 2)
    return FasterRCNN(backbone, rpn_anchor_generator=anchors, **head, **sizes, **few)


def detect(model, size):
    images = [torch.rand(3, *size) for _ in range(2)]
    targets = [
        {"boxes": torch.tensor([[8.0, 8.0, 40.0, 48.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.tensor([[20.0, 4.0, 60.0, 30.0], [0.0, 30.0, 30.0, 60.0]]), "labels": torch.tensor([2, 1])},
    ]
    fall(model, lambda: sum(model(images, targets).values()))
    assert [set(found) for found in model.eval()(images)] == [{"boxes", "labels", "scores"}] * 2


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["RetinaNet", "FasterRCNN"])
@pytest.mark.parametrize("name", ["plain", "pooled"])
def test_torchvisions_detectors_train_over_the_simple_pyramid(name, kind, size, source):
    detect(detector(kind, SimplePyramid(features(source, name), 32), size, 5), size)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_torchvisions_detectors_train_over_maps_of_several_strides(size, source):
    body = features(source, "odd", out_indices=[0, 1, 3], out_strides=[4, 8, 16])
    detect(detector("FasterRCNN", Pyramid(body), size, 3), size)
    detect(detector("RetinaNet", Pyramid(features(source, "pyramid")), size, 4), size)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["RetinaNet", "FasterRCNN"])
def test_torchvisions_detectors_train_over_the_stages_of_a_pyramid(kind, size, source):
    body = timm.create_model(source("pvt"), pretrained=True, features_only=True)  # takes images of any size
    assert (body.feature_info.reduction(), body.feature_info.channels()) == ([4, 8, 16, 32], [16, 24, 32, 48])
    detect(detector(kind, Pyramid(body), size, 4), size)


def test_levels_of_a_pyramid_are_counted_as_timms_pyramids_count_them(source):
    chosen = timm.create_model(source("pvt"), features_only=True, out_indices=(1, -1))
    assert chosen.feature_info.reduction() == [8, 32]
    assert [found.shape[1] for found in chosen(torch.randn(1, 3, 64, 96))] == [24, 48]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ["plain", "pooled"])
def test_segmentation_models_pytorchs_dpt_trains_over_a_bundle(name, size, source):
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = smp.DPT(
        f"tu-{source(name)}",  # weights of the bundle: `encoder_weights` is not None
        decoder_intermediate_channels=(8, 8, 8, 8),
        decoder_fusion_channels=8,
        classes=2,
        dynamic_img_size=True,
    )
    # The classifier and the norm before it are there, as they are of timm's own ViT.
    segment(model, size, ("encoder.model.head", "encoder.model.norm"))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["Unet", "FPN", "UPerNet"])
@pytest.mark.parametrize("name", ["pyramid", "pvt"])
def test_its_networks_for_pyramids_train_over_a_bundle_of_strides_4_to_32(name, kind, size, source):
    smp = pytest.importorskip("segmentation_models_pytorch")
    given = {"Unet": {"decoder_channels": (16, 8, 8, 8, 8)}, "FPN": {"decoder_pyramid_channels": 16}}.get(kind, {})
    model = getattr(smp, kind)(f"tu-{source(name)}", encoder_weights=True, classes=2, dynamic_img_size=True, **given)
    segment(model, size)


def test_what_they_do_not_take_fails_as_the_page_on_dense_tasks_says(source):
    smp = pytest.importorskip("segmentation_models_pytorch")
    for name, words in (
        ("plain", "Unsupported model downsampling pattern"),
        ("two", r"out_indices \(0, 1, 2, 3\): the layers of the network are 0 to 1"),
    ):
        for kind in (smp.Unet, smp.FPN):
            with pytest.raises((ValueError, ArchitectureError), match=words):
                kind(f"tu-{source(name)}", encoder_weights=True, dynamic_img_size=True)
    with pytest.raises(ValueError, match="Depth of the encoder cannot exceed"):
        smp.DPT(f"tu-{source('two')}", dynamic_img_size=True)
    model = smp.DPT(f"tu-{source('plain')}", dynamic_img_size=True, classes=2).eval()
    with torch.no_grad():
        for side in (32, 64, 96):
            assert model(torch.zeros(1, 3, side, side)).shape[2:] == (side, side)
        for side in (16, 48):
            with pytest.raises(RuntimeError, match="size of tensor"):
                model(torch.zeros(1, 3, side, side))


def segment(model, size, may_lack=()):
    images, masks = torch.randn(2, 3, *size), torch.zeros(2, *size, dtype=torch.long)
    masks[:, 8:40, 16:] = 1
    images[:, 0] += 2 * masks
    fall(model, lambda: functional.cross_entropy(model(images), masks), may_lack)
    assert model.eval()(images).shape == (2, 2, *size)


def test_maps_of_odd_strides_are_cut_beside_the_box_and_resampled_ones_are_not(source):
    """torchvision infers 1/4 for a stride of 16/3: a box in the middle reads the map at 2/3 of its width."""
    with pytest.warns(UserWarning, match=r"5\.33 of layer 1.*out_strides=\[4, 4, 8, 8\] resamples"):
        body = features(source, "odd")
    images, boxes = torch.zeros(1, 3, 96, 96), [torch.tensor([[40.0, 40.0, 56.0, 56.0]])]

    def read(found):
        """What a pooling that is told the size of the images reads of the column in pixels."""
        cells = found.shape[-1]
        columns = ((torch.arange(cells) + 0.5) * 96 / cells).expand(1, 1, cells, cells)
        return MultiScaleRoIAlign(["0"], 1, 2)({"0": columns}, boxes, [(96, 96)]).item()

    assert body.feature_info.reduction() == [4, pytest.approx(16 / 3), 8, 8]
    assert [found.shape[-1] for found in body(images)] == [24, 18, 12, 12]
    assert read(body(images)[1]) == pytest.approx(64 + 16 / 6), "it counts from the middle of the first cell"
    strided = features(source, "odd", out_strides=[4, 4, 8, 8])
    assert strided.feature_info.reduction() == [4, 4, 8, 8]
    assert [read(found) for found in strided(images)] == pytest.approx([48 + 2, 48 + 2, 48 + 4, 48 + 4])
