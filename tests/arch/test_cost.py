from dataclasses import replace

import numpy as np
import pytest
from factories import backbone, plain, varied
from small_spaces import space

from nas.arch import cost
from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.backbone import Backbone


def deit(width: int) -> Architecture:
    layer = LayerChoice(num_tokens=196, num_heads=width // 64, mlp_ratio=4)
    return Architecture(embed_dim=width, layers=(layer,) * 12)


COUNTED = {"cpu": 940, "meta": 60}  # architectures; meta kernels are Python, and take three times as long
DEIT = Backbone(image_size=224, patch_size=16)


@pytest.mark.parametrize(
    ("width", "giga_macs", "million_params"), [(192, 1.254, 5.72), (384, 4.599, 22.05), (768, 17.56, 86.57)]
)
def test_deit_costs_what_is_published(width, giga_macs, million_params):
    # METHODS 0.3, of DeiT's own tables and timm's counts
    assert cost.macs(deit(width), DEIT) / 1e9 == pytest.approx(giga_macs, rel=5e-4)
    assert cost.params(deit(width), DEIT) / 1e6 == pytest.approx(million_params, rel=5e-4)


HALVED = {"hallucination_ratio": 0.5, "hallucination": "mix_conv"}
SAVED = {  # METHODS 1.4, 2.2, 3.4, 4.3: MACs of DeiT-Ti and DeiT-S, percent, by what changes in which layers
    "hMHSA": (HALVED, range(12), -6.7, -9.3),
    "cFFN": ({"ffn_rank": 0.5}, range(12), -10.4, -11.4),
    "hMHSA + cFFN": ({**HALVED, "ffn_rank": 0.5}, range(12), -17.1, -20.6),
    "hMHSA + cFFN of a quarter": ({**HALVED, "ffn_rank": 0.25}, range(12), -25.8, -30.1),
    "4 static": ({"attention": "static"}, range(4), -7.0, -6.3),
    "12 static": ({"attention": "static"}, range(12), -21.0, -19.0),
    "every 2nd shared": ({"attention": "shared"}, range(1, 12, 2), -10.5, -9.5),
    "2 of 3 shared": ({"attention": "shared"}, [i for i in range(12) if i % 3], -14.0, -12.7),
    "linear": ({"attention": "linear"}, range(12), -9.3, -5.1),
}


@pytest.mark.parametrize("name", SAVED)
def test_operators_save_what_methods_says(name):
    genes, changed, *percents = SAVED[name]
    for width, percent in zip((192, 384), percents, strict=True):
        plain_vit = deit(width)
        layers = [replace(la, **genes) if i in changed else la for i, la in enumerate(plain_vit.layers)]
        found = cost.macs(Architecture(embed_dim=width, layers=tuple(layers)), DEIT)
        assert 100 * (found / cost.macs(plain_vit, DEIT) - 1) == pytest.approx(percent, abs=0.15)


@pytest.mark.parametrize(("counts", "least", "most"), [((98, 49), 2.3, 2.45), ((49, 49), 1.95, 2.1)])
def test_static_maps_and_a_pyramid_reach_the_published_range_on_deit_small(counts, least, most):
    plain_layer = deit(384).layers[0]
    layers = [replace(plain_layer, attention="static")] * 4
    for i in range(4, 12):
        tokens = counts[i >= 8]
        reducer = "glad" if tokens < layers[-1].num_tokens else None
        layers.append(replace(plain_layer, num_tokens=tokens, reducer=reducer))
    assert least < cost.macs(Architecture(embed_dim=384, layers=tuple(layers)), DEIT) / 1e9 < most


def test_deit_counts_are_exact():
    assert cost.macs(deit(192), DEIT) == 1_253_683_200
    assert cost.macs(deit(384), DEIT) * 2 == 9_197_764_608  # FlopCounterMode of timm's deit_small_patch16_224
    assert cost.params(deit(192), DEIT) == 5_717_416


@pytest.mark.slow
@pytest.mark.parametrize("device", COUNTED)
@pytest.mark.parametrize("class_token", [True, False], ids=["class_token", "mean_pooled"])
def test_macs_are_half_of_the_counted_flops_and_params_are_all_of_them(class_token, device):
    import torch  # what is quick to test needs none
    from flops import flop_counter

    from nas.model.families.vit import Subnet

    searched = space(backbone=backbone(class_token=class_token), depth=(2, 3))
    rng = np.random.default_rng(0)
    images = torch.zeros(1, 1, 16, 16, device=device)
    wrong = []
    for architecture in (varied(), *(searched.sample(rng) for _ in range(COUNTED[device] // 2))):
        with torch.device("meta"):
            subnet = Subnet(searched.backbone, architecture).eval().to_empty(device=device)
        with flop_counter() as counted, torch.no_grad():
            subnet(images)
        if cost.macs(architecture, searched.backbone) * 2 != counted.get_total_flops():
            wrong.append(("macs", architecture))
        if cost.params(architecture, searched.backbone) != sum(p.numel() for p in subnet.parameters()):
            wrong.append(("params", architecture))
    assert wrong == []


def test_counts_of_every_operator_are_as_torch_counted_them():
    """The slow test above holds torch's counter to these formulas."""
    assert (cost.macs(varied(), backbone()), cost.params(varied(), backbone())) == (361_148, 37_641)


def test_breakdown_adds_up_and_names_every_layer():
    for architecture in (plain(), varied()):
        operations = cost.breakdown(architecture, backbone())
        assert sum(o.macs for o in operations) == cost.macs(architecture, backbone())
        assert sum(o.params for o in operations) == cost.params(architecture, backbone())
        inside = [o.layer for o in operations if o.layer is not None]
        assert inside == sorted(inside)
        assert set(inside) == set(range(architecture.depth))
    names = {o.operation for o in cost.breakdown(varied(), backbone())}
    assert {"conv_pool", "glad", "static_map", "hallucinate", "scores", "v", "conv_values"} <= names


def test_shared_and_static_layers_pay_for_no_queries_and_keys():
    by_layer = {}
    for operation in cost.breakdown(varied(), backbone()):
        by_layer.setdefault(operation.layer, set()).add(operation.operation)
    assert {"qkv", "scores"} <= by_layer[0]
    assert not {"qkv", "scores"} & by_layer[1]
    assert not {"qkv", "scores"} & by_layer[3]
