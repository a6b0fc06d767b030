"""The laws where feed-forwards have a convolution: costs, memory, slices, trees, other images, graphs."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from factories import backbone, plain, varied
from flops import flop_counter
from live_storages import tracked_peak
from small_spaces import every_choice, growing, randomise, space

from nas.arch import cost, memory
from nas.arch.architecture import Architecture, LayerChoice
from nas.base.errors import ArchitectureError
from nas.model.families.vit import Subnet
from nas.model.supernet import Supernet
from nas.model.tree import SubnetParts, SubnetTree
from nas.space import notes

OPTIONS = ({}, {"class_token": False}, {"reg_tokens": 2, "act": "silu"}, {"class_token": False, "positions": "none"})
WIDE = LayerChoice(num_tokens=16, num_heads=1, mlp_ratio=4)


def convolved(architecture, *, convolves=True):
    layers = (replace(layer, ffn_conv=convolves) for layer in architecture.layers)
    return replace(architecture, layers=tuple(layers))


NETWORKS = (
    convolved(Architecture(embed_dim=24, layers=varied().layers[:7])),
    convolved(plain(embed_dim=17)),
    convolved(Architecture(embed_dim=24, layers=(WIDE,))),
    convolved(Architecture(embed_dim=24, layers=(replace(WIDE, ffn_rank=0.75),))),
)
IMAGES = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def searched(fixed=None, *, convolves=(True, False), **changes):
    fixed = fixed or backbone()
    counts = (16, 4) if fixed.key_tokens else (16, 9, 4)
    domain = every_choice(num_tokens=counts, reducer=("pool", "conv_pool"), ffn_conv=convolves)
    return space(domain, backbone=fixed, **changes)


def built(architecture=NETWORKS[0], fixed=None, **options):
    subnet = Subnet(fixed or backbone(), architecture, **options).eval()
    randomise(subnet)
    return subnet


def random_supernet(searched):
    supernet = Supernet(searched).eval()
    randomise(supernet)
    return supernet


@pytest.mark.parametrize("options", OPTIONS)
def test_costs_and_memory_are_what_torch_counts(options):
    fixed = backbone(**options)
    for architecture in NETWORKS:
        subnet = built(architecture, fixed)
        assert cost.params(architecture, fixed) == sum(p.numel() for p in subnet.parameters())
        with torch.device("meta"):
            there = Subnet(fixed, architecture)
        with flop_counter() as counter:
            there(torch.zeros(1, 1, 16, 16, device="meta"))
        assert counter.get_total_flops() == 2 * cost.macs(architecture, fixed)
        for count in (1, 3):
            assert tracked_peak(subnet, count) == memory.peak_activation_bytes(architecture, fixed, count)
            if architecture.depth == 1:
                stages = memory.live_values(architecture, fixed, count)
                assert max(stages, key=lambda stage: stage[2])[1] == "mlp"


def test_a_convolution_has_nine_products_a_patch_and_ten_parameters_a_neuron():
    fixed = backbone()
    for architecture in NETWORKS:
        without = convolved(architecture, convolves=False)
        neurons = [architecture.hidden_dim(i) for i in range(architecture.depth)]
        patches = sum(9 * n * layer.num_tokens for n, layer in zip(neurons, architecture.layers, strict=True))
        assert cost.macs(architecture, fixed) - cost.macs(without, fixed) == patches
        assert cost.params(architecture, fixed) - cost.params(without, fixed) == 10 * sum(neurons)


@pytest.mark.parametrize("options", [*OPTIONS, {"class_token": False, "key_tokens": 4}])
def test_subnets_are_those_extracted_and_those_of_a_tree_bit_for_bit(options):
    fixed, rng = backbone(**options), np.random.default_rng(0)
    whole = searched(fixed)
    drawn = [whole.sample(rng) for _ in range(8)]
    drawn += [whole.mutate(one, rng) for one in drawn] + [whole.smallest(), whole.largest()]
    assert {layer.ffn_conv for architecture in drawn for layer in architecture.layers} == {False, True}
    supernet = random_supernet(whole)
    with torch.no_grad():
        found, failed = SubnetTree(SubnetParts(supernet, torch.device("cpu"), "fp32"), dict(enumerate(drawn))).answers(
            IMAGES, range(len(drawn))
        )
        assert not failed
        for number, architecture in enumerate(drawn):
            alone = supernet.extract(architecture)(IMAGES)
            assert torch.equal(found[number][1], alone)
            assert torch.equal(supernet(IMAGES, architecture), alone)
    for architecture in drawn[:4]:
        subnet = supernet.extract(architecture)
        assert cost.params(architecture, fixed) == sum(p.numel() for p in subnet.parameters())
        assert tracked_peak(subnet, 2) == memory.peak_activation_bytes(architecture, fixed, 2)


def test_slices_are_prefixes_also_where_layers_widen():
    layers = tuple(replace(domain, reducer=("pool",), ffn_conv=(True,)) for domain in growing().layers)
    whole, rng = growing(layers=layers), np.random.default_rng(0)
    drawn = [whole.sample(rng) for _ in range(12)]
    assert any(len(set(architecture.widths)) > 1 for architecture in drawn)
    supernet = random_supernet(whole)
    stored = supernet.state_dict()
    assert stored["blocks.0.mlp.dwconv.weight"].shape == (12, 1, 3, 3)  # as wide as layer 0 can become
    for architecture in drawn:
        subnet = supernet.extract(architecture)
        for name, value in subnet.state_dict().items():
            if "dwconv" in name:
                assert torch.equal(value, stored[name][: len(value)])
        with torch.no_grad():
            assert torch.equal(supernet(IMAGES, architecture), subnet(IMAGES))


def test_convolutions_are_weights_of_the_plain_network_and_decay():
    with_it, without = (Supernet(searched(convolves=on), seed=3) for on in ((False, True), (False,)))
    own = with_it.state_dict().keys() - without.state_dict().keys()
    assert own == {f"blocks.{i}.mlp.dwconv.{kind}" for i in range(4) for kind in ("weight", "bias")}
    assert own < with_it.dense().state_dict().keys()
    assert not own & with_it.no_weight_decay()


def test_convolutions_learn_and_only_their_first_channels():
    supernet = Supernet(searched(convolves=(True,)))
    smallest = supernet.space.smallest()
    supernet(IMAGES, smallest).sum().backward()
    for name in ("weight", "bias"):
        learned = supernet.get_parameter(f"blocks.0.mlp.dwconv.{name}").grad.flatten(1 - (name == "bias"))
        hidden = smallest.hidden_dim(0)
        assert learned[:hidden].any()
        assert not learned[hidden:].any()


@pytest.mark.parametrize("size", [(24, 16), (32, 40)])
def test_images_of_another_size_lie_on_their_own_grid(size):
    for options in OPTIONS:
        fixed, images = backbone(**options), torch.randn(2, 1, *size)
        reference, architecture = None, NETWORKS[0]
        layers = tuple(replace(la, attention="dynamic") for la in architecture.layers if la.attention != "shared")
        pooled = replace(architecture, layers=layers)
        for dynamic in (True, False):
            subnet = built(pooled, fixed, dynamic_img_size=dynamic)
            if not dynamic:
                subnet.set_input_size(img_size=size)
            with torch.no_grad():
                logits = subnet(images)
            assert reference is None or torch.allclose(logits, reference, atol=1e-4)
            reference = logits


TRACED = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10),
    reason="torch.fx of that age makes no constants of a traced weight's type, as mixed heads need",
)


@pytest.mark.parametrize("kind", ["getter", pytest.param("fx", marks=TRACED)])
def test_features_are_those_of_the_network(kind):
    given = {"architecture": NETWORKS[0].to_dict(), "backbone": backbone().to_dict()}
    subnet = built()
    features = timm.create_model("nas_vit", **given, features_only=True, feature_cls=kind).eval()
    (features.graph_module if kind == "fx" else features.model).load_state_dict(subnet.state_dict(), strict=False)
    shape = "NLC" if kind == "fx" else "NCHW"
    with torch.no_grad():
        ours = subnet.forward_intermediates(IMAGES, intermediates_only=True, output_fmt=shape)
        for own, theirs in zip(ours, features(IMAGES), strict=True):
            assert torch.equal(own, theirs[:, 1:] if kind == "fx" else theirs)


@TRACED
def test_graphs_compute_the_network():
    subnet = built()
    graphs = [torch.fx.symbolic_trace(subnet), torch.compile(subnet, backend="eager", fullgraph=True)]
    with torch.no_grad():
        for graph in graphs:
            assert torch.allclose(graph(IMAGES), subnet(IMAGES), atol=1e-5)


def test_what_dissolves_the_grid_is_refused():
    with pytest.raises(ArchitectureError, match=r"layer 7: ffn_conv needs the grid that .* dissolved \(C19"):
        convolved(varied())
    always = every_choice(num_tokens=(16, 4), reducer=("glad", "pool"), ffn_conv=(True,))
    kept = space(always, depth=(2,))
    rng = np.random.default_rng(0)
    assert all(layer.reducer != "glad" for _ in range(40) for layer in kept.sample(rng).layers)
    assert "reducer glad is in no network (C10, C12, C19)" in notes(kept)
    either = space(replace(always, ffn_conv=(False, True)), depth=(2,))
    drawn = [layer for _ in range(60) for layer in either.sample(rng).layers]
    assert any(layer.reducer == "glad" for layer in drawn)
    assert not any(layer.reducer == "glad" and layer.ffn_conv for layer in drawn)


def test_half_of_the_layers_convolve_where_each_may():
    whole, rng = searched(), np.random.default_rng(0)
    for draw in (whole.sample, whole.sample_by_gene):
        share = np.mean([layer.ffn_conv for _ in range(200) for layer in draw(rng).layers])
        assert 0.25 < share < 0.6
