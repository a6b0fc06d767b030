"""Tokens embedded anew: timm's downsampling, and the laws that hold for all operators."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from flops import flop_counter
from live_storages import tracked_peak
from small_spaces import embedding, listed, randomise
from timm.models.pvt_v2 import OverlapPatchEmbed
from torch import nn

from nas.arch import cost, memory
from nas.arch.architecture import Architecture, LayerChoice
from nas.base.errors import ArchitectureError, SearchSpaceError
from nas.model.families.vit import Subnet
from nas.model.layers.embed import TokenEmbed
from nas.model.supernet import Supernet
from nas.model.tree import SubnetParts, SubnetTree
from nas.space.space import SearchSpace, parse_space

SPACE = embedding()
FIXED = SPACE.backbone
WITH_FEWER_KEYS = replace(
    SPACE,
    backbone=replace(FIXED, image_size=32, key_tokens=4),
    layers=tuple(replace(domain, num_tokens=(64, 16, 4)) for domain in SPACE.layers),
)
TEXT = """
name: pyramid
backbone: {image_size: 28, patch_size: 4, num_classes: 10, head_dim: 8, class_token: false, positions: none}
embed_dim: [8, 16]
stem: overlap
depth: [2, 3]
layers: {num_tokens: [49, 16, 9, 4], reducer: embed, embed_dim: [0, 24], num_heads: 1, mlp_ratio: [1, 2]}
"""


def layer(tokens: int, **genes) -> LayerChoice:
    return LayerChoice(num_tokens=tokens, **{"num_heads": 1, "mlp_ratio": 1, **genes})


PYRAMID = Architecture(
    embed_dim=8,
    stem="overlap",
    layers=(
        layer(49),
        layer(16, reducer="embed", embed_dim=12, attention="static"),
        layer(16, attention="linear"),
        layer(4, reducer="embed", embed_dim=24),
    ),
)


def drawn(count: int, seed: int = 0, space: SearchSpace = SPACE) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    found = [space.sample(rng) for _ in range(count)]
    assert any("embed" in {each.reducer for each in a.layers} for a in found)
    return found


def images(count: int, height: int = 28, width: int = 28) -> torch.Tensor:
    return torch.randn(count, 1, height, width, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("sides", [(7, 7), (4, 4), (5, 8)])
def test_it_is_the_end_of_a_stage_of_pvt_and_the_embedding_of_the_next(sides):
    theirs, end = OverlapPatchEmbed(patch_size=3, stride=2, in_chans=8, embed_dim=12), nn.LayerNorm(8, eps=1e-6)
    ours = TokenEmbed(8, 12, 1e-6)
    for module in (theirs, end):
        randomise(module)
    weights = {f"embed_before.{name}": value for name, value in end.state_dict().items()}
    for name, value in theirs.state_dict().items():
        weights[name.replace("proj", "embed").replace("norm", "embed_after")] = value
    ours.load_state_dict(weights)
    subnet = Subnet(FIXED, PYRAMID, dynamic_img_size=True).eval()
    frame = subnet._embedded(images(1, 4 * sides[0], 4 * sides[1]), None, is_causal=False)[1][1]
    frames = () if frame is None else (frame,)
    x = torch.randn(2, sides[0] * sides[1], 8)
    with torch.no_grad():
        grid = end(x).transpose(1, 2).unflatten(2, sides)
        assert torch.allclose(ours(x, *frames), theirs(grid).flatten(1, 2), atol=1e-6)
    assert ours.embed_after.eps == theirs.norm.eps


def test_first_values_are_those_of_timms_pvt():
    store = Supernet(SPACE, seed=1).state_dict()
    kernel = store["blocks.1.reducer.embed.weight"]
    assert kernel.shape == (16, 16, 3, 3)
    assert kernel.std() == pytest.approx((2 / (9 * 16)) ** 0.5, rel=0.1)
    assert not store["blocks.1.reducer.embed.bias"].any()


@pytest.mark.parametrize("searched", [SPACE, WITH_FEWER_KEYS], ids=["all keys", "fewer keys"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_costs_and_memory_are_those_that_run(batch_size, searched):
    fixed, side = searched.backbone, searched.backbone.image_size
    for architecture in [*[PYRAMID] * (searched is SPACE), *drawn(25, batch_size, searched)]:
        with torch.device("meta"):
            on_meta = Subnet(fixed, architecture).eval()
        with flop_counter() as counted, torch.no_grad():
            on_meta(torch.empty(1, 1, side, side, device="meta"))
        assert counted.get_total_flops() == 2 * cost.macs(architecture, fixed), architecture
        assert sum(p.numel() for p in on_meta.parameters()) == cost.params(architecture, fixed)
        subnet = Subnet(fixed, architecture).eval()
        randomise(subnet)
        assert tracked_peak(subnet, batch_size) == memory.peak_activation_bytes(architecture, fixed, batch_size)


@pytest.mark.parametrize(("arriving", "width"), [(8, 24), (24, 24), (2, 2)])
def test_the_reducer_alone_needs_the_memory_that_it_says(arriving, width):
    """Also where another operation makes the peak."""

    class Alone(nn.Module):
        backbone = replace(FIXED, in_chans=arriving, image_size=8, patch_size=2)

        def __init__(self) -> None:
            super().__init__()
            self.embed = TokenEmbed(arriving, width, 1e-6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.embed(x.flatten(2).transpose(1, 2).contiguous()[:, :])

    architecture = Architecture(
        embed_dim=arriving, layers=(layer(64), layer(16, reducer="embed", embed_dim=width if width > arriving else 0))
    )
    fixed = replace(FIXED, image_size=32, patch_size=4)
    said = {name: n for i, name, n in memory.live_values(architecture, fixed, 3) if i == 1 and name == "embed"}["embed"]
    held = memory.held_values(64, arriving, fixed, 3)
    # images of `arriving` channels are what arrives, and tokens in raster order are a copy of them
    assert tracked_peak(Alone(), 3) == 4 * (2 * 3 * 64 * arriving + said - held)


def test_extracted_subnets_equal_the_supernet_bit_for_bit_also_in_a_tree():
    supernet = Supernet(SPACE).eval()
    randomise(supernet)
    chosen = drawn(25)
    found, failed = SubnetTree(SubnetParts(supernet, torch.device("cpu"), "fp32"), dict(enumerate(chosen))).answers(
        images(3), range(len(chosen))
    )
    assert not failed
    with torch.no_grad():
        for number, architecture in enumerate(chosen):
            logits = supernet.extract(architecture)(images(3))
            assert torch.equal(supernet(images(3), architecture), logits)
            assert torch.equal(found[number][1], logits)


def test_every_weight_learns_and_no_matrix_widens():
    searched = parse_space(TEXT, "pyramid.yaml")
    supernet = Supernet(replace(searched, backbone=replace(searched.backbone, in_chans=1)))
    wide = Architecture(embed_dim=16, stem="overlap", layers=(layer(49), layer(16, reducer="embed", embed_dim=24)))
    supernet(images(2), wide).square().sum().backward()
    learned = {name for name, p in supernet.named_parameters() if p.grad is not None and p.grad.any()}
    parts = ("embed_before", "embed", "embed_after")
    assert {f"blocks.1.reducer.{part}.{kind}" for part in parts for kind in ("weight", "bias")} <= learned
    assert not any("widen" in name for name, _ in supernet.named_parameters())


def test_counts_and_bounds_are_those_of_the_listing():
    every = list(listed(SPACE))
    assert SPACE.size() == len(set(every)) > 100
    assert any(a.layers[-1].reducer == "embed" and len(set(a.widths)) > 1 for a in every)
    assert [a for a in every if a not in SPACE or SPACE.decode(SPACE.encode(a)) != a] == []
    macs = [cost.macs(a, FIXED) for a in every]
    assert (cost.macs(SPACE.smallest(), FIXED), cost.macs(SPACE.largest(), FIXED)) == (min(macs), max(macs))
    needed = [memory.bytes_to_run(a, FIXED) for a in every]
    assert SPACE.memory_range() == (min(needed), max(needed))


@pytest.mark.parametrize("size", [(28, 28), (20, 36), (56, 40)])
def test_images_of_another_size_halve_their_sides_too(size):
    subnet = Subnet(FIXED, PYRAMID, dynamic_img_size=True).eval()
    randomise(subnet)
    rows, columns = size[0] // 4, size[1] // 4
    shapes = []
    for block in subnet.blocks:
        block.register_forward_hook(lambda _, __, out: shapes.append(out[0].shape[1]))
    with torch.no_grad():
        logits = subnet(images(2, *size))
        again = Subnet(FIXED, PYRAMID).eval()
        again.load_state_dict(subnet.state_dict())
        again.set_input_size(size)
        assert torch.allclose(again(images(2, *size)), logits, atol=1e-5)
    half = ((rows + 1) // 2, (columns + 1) // 2)
    quarter = ((half[0] + 1) // 2, (half[1] + 1) // 2)
    assert shapes == [rows * columns, half[0] * half[1], half[0] * half[1], quarter[0] * quarter[1]]


def test_where_it_cannot_be_is_said_at_the_key():
    text = TEXT.replace("class_token: false", "class_token: true")
    with pytest.raises(SearchSpaceError, match=r"line 7: layers\.reducer.*: embed needs class_token false") as refused:
        parse_space(text, "pyramid.yaml")
    assert str(refused.value).count("(C18)") == 1
    with pytest.raises(SearchSpaceError, match=r"layers\.0\.reducer: embed needs class_token false"):
        replace(SPACE, backbone=replace(FIXED, reg_tokens=1))
    with pytest.raises(ArchitectureError, match="embed needs class_token false"):
        Subnet(replace(FIXED, class_token=True), PYRAMID)
    first = Architecture(embed_dim=8, layers=(layer(9, reducer="embed"),))
    with pytest.raises(ArchitectureError, match="49 tokens become 16, not 9"):
        Subnet(FIXED, first)
    with pytest.raises(SearchSpaceError, match=r"49 tokens become 16, not 9 \(C18\)"):
        parse_space(TEXT.replace("[49, 16, 9, 4]", "[9]"), "pyramid.yaml")


def test_grids_of_the_first_layer_may_be_halved_too():
    first = Architecture(embed_dim=8, layers=(layer(16, reducer="embed", embed_dim=16), layer(16)))
    subnet = Subnet(FIXED, first).eval()
    randomise(subnet)
    assert tracked_peak(subnet, 2) == memory.peak_activation_bytes(first, FIXED, 2)
    assert subnet(images(2)).shape == (2, FIXED.num_classes)


@pytest.mark.parametrize("kind", ["getter", "fx"])
def test_features_are_those_of_the_network(kind):
    given = {"architecture": PYRAMID.to_dict(), "backbone": FIXED.to_dict()}
    subnet = Subnet(FIXED, PYRAMID).eval()
    randomise(subnet)
    options = {"features_only": True, "feature_cls": kind, "in_chans": 1}
    features = timm.create_model("nas_vit", **given, **options).eval()
    (features.graph_module if kind == "fx" else features.model).load_state_dict(subnet.state_dict(), strict=False)
    shape = "NLC" if kind == "fx" else "NCHW"
    with torch.no_grad():
        ours = subnet.forward_intermediates(images(2), intermediates_only=True, output_fmt=shape)
        ends = [ours[i] for i in (0, 2, 3)]  # of the stages
        assert all(torch.equal(own, other) for own, other in zip(ends, features(images(2)), strict=True))
    assert features.feature_info.channels() == [8, 12, 24]
    assert features.feature_info.reduction() == [4, 8, 16]  # of 7, 4 and 2 tokens a side
