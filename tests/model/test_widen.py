"""Width by layer: laws over architectures that widen where they reduce their tokens."""

import numpy as np
import pytest
import torch
from factories import backbone
from flops import flop_counter
from live_storages import tracked_peak
from small_spaces import every_choice, growing, randomise, space

from nas.arch import cost, memory
from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.operator import Rules
from nas.base.errors import ArchitectureError
from nas.model.families.vit import Subnet
from nas.model.supernet import Supernet
from nas.model.tree import SubnetParts, SubnetTree
from nas.model.widen import Widen

SPACE = space(every_choice(embed_dim=(0, 24, 32)), rules=Rules(static_after_reduction=True))
PYRAMID = Architecture(
    embed_dim=8,
    layers=tuple(
        LayerChoice(num_tokens=tokens, reducer=reducer, embed_dim=width, num_heads=1, mlp_ratio=1)
        for tokens, reducer, width in ((16, None, 0), (9, "pool", 12), (9, None, 0), (4, "glad", 20), (1, "glad", 0))
    ),
)


def drawn(count: int, searched=SPACE, seed: int = 0) -> list[Architecture]:
    """Architectures of which all widen somewhere."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        architecture = searched.sample(rng)
        if len(set(architecture.widths)) > 1:
            found.append(architecture)
    return found


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(count))


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    found = Supernet(SPACE).eval()
    randomise(found)
    return found


def test_widths_are_those_of_the_tokens_behind_every_layer():
    assert PYRAMID.widths == (8, 12, 12, 20, 20)
    subnet = Subnet(backbone(), PYRAMID).eval()
    _, maps = subnet.forward_intermediates(images(1), output_fmt="NLC")
    assert [found.shape[2] for found in maps] == [8, 12, 12, 20, 20]
    assert [info["num_chs"] for info in subnet.feature_info] == [8, 12, 12, 20, 20]
    assert (subnet.embed_dim, subnet.num_features) == (8, 20)
    assert subnet.head.in_features == 20


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"embed_dim": 12}, "embed_dim grows only where tokens are reduced, got 12 (C16)"),
        ({"embed_dim": 8, "num_tokens": 4, "reducer": "pool"}, "embed_dim 8 is not above the 8 that arrive (C16)"),
        ({"embed_dim": 5, "num_tokens": 4, "reducer": "pool"}, "embed_dim 5 is not above the 8 that arrive (C16)"),
    ],
)
def test_a_width_that_does_not_grow_behind_a_reducer_is_refused(layer, words):
    with pytest.raises(ArchitectureError) as error:
        Architecture(embed_dim=8, layers=[LayerChoice(**{"num_tokens": 16, "num_heads": 1, "mlp_ratio": 1, **layer})])
    assert words in str(error.value)


def test_json_has_the_width_where_it_grows_and_nowhere_else():
    layers = PYRAMID.to_dict()["layers"]
    assert [layer.get("embed_dim") for layer in layers] == [None, 12, None, 20, None]
    assert Architecture.from_json(PYRAMID.to_json()) == PYRAMID


def test_costs_and_memory_are_those_that_run():
    for architecture in [PYRAMID, *drawn(20)]:
        with torch.device("meta"):
            on_meta = Subnet(backbone(), architecture).eval()
        with flop_counter() as counted, torch.no_grad():
            on_meta(torch.empty(1, 1, 16, 16, device="meta"))
        assert counted.get_total_flops() == 2 * cost.macs(architecture, backbone()), architecture
        assert sum(p.numel() for p in on_meta.parameters()) == cost.params(architecture, backbone())
        subnet = Subnet(backbone(), architecture).eval()
        randomise(subnet)
        assert tracked_peak(subnet, 3) == memory.peak_activation_bytes(architecture, backbone(), 3), architecture


def test_extracted_subnets_and_trees_equal_the_supernet_bit_for_bit(supernet):
    architectures = drawn(20)
    with torch.no_grad():
        alone = [supernet(images(3), architecture) for architecture in architectures]
        for logits, architecture in zip(alone, architectures, strict=True):
            assert torch.equal(logits, supernet.extract(architecture)(images(3))), architecture
        tree = SubnetTree(SubnetParts(supernet, torch.device("cpu"), "fp32"), dict(enumerate(architectures)))
        found, failed = tree.answers(images(3), range(len(architectures)))
    assert not failed
    assert all(torch.equal(found[i][1], logits) for i, logits in enumerate(alone))


def test_the_first_channels_mean_the_same_behind_it():
    x = torch.randn(2, 5, 8)
    wide = Widen(8, 12)(x)
    assert torch.equal(wide[..., :8], x)
    assert not wide[..., 8:].any()


def test_a_fresh_network_that_widens_learns_in_all_its_channels():
    subnet = Subnet(backbone(), PYRAMID)
    subnet.init_weights()
    subnet(images(4)).logsumexp(dim=1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in subnet.blocks[1].parameters())
    assert "blocks.1.widen.weight" in subnet.no_weight_decay()
    assert "blocks.1.widen.weight" in Supernet(growing()).no_weight_decay()


def test_plain_networks_of_such_a_space_are_as_without_it():
    searched = space(every_choice())
    layer = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=2)
    plain = Architecture(embed_dim=24, layers=(layer,) * 3)
    assert plain in SPACE
    assert plain.digest == next(a.digest for a in [plain] if a in searched)
    assert searched.to_dict()["layers"][0].keys() == SPACE.to_dict()["layers"][0].keys() - {"embed_dim"}
