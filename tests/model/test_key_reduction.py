"""Keys of a coarser grid: laws over every kind of attention that has maps."""

import numpy as np
import pytest
import torch
from factories import backbone
from flops import flop_counter
from live_storages import tracked_peak
from small_spaces import every_choice, randomise, space

from nas.arch import cost, memory
from nas.arch import tiling as chunks
from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.operator import Rules
from nas.base.errors import ArchitectureError, SearchSpaceError
from nas.model.families.vit import Subnet
from nas.model.key_reduction import KeyReduction
from nas.model.supernet import Supernet

FIXED = backbone(class_token=False, key_tokens=4)
DOMAIN = every_choice(
    num_tokens=(16, 4), reducer=("pool", "conv_pool"), attention=("dynamic", "static", "shared"), num_heads=(1, 2, 3)
)
SPACE = space(DOMAIN, backbone=FIXED, rules=Rules(static_after_reduction=True))


def drawn(count: int, seed: int = 0) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [SPACE.sample(rng) for _ in range(count)]


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("chunk_bytes", [chunks.CHUNK_BYTES, 3_000])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_costs_and_memory_are_those_that_run(batch_size, chunk_bytes, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", chunk_bytes)
    for architecture in drawn(25, seed=batch_size):
        with torch.device("meta"):
            on_meta = Subnet(FIXED, architecture).eval()
        with flop_counter() as counted, torch.no_grad():
            on_meta(torch.empty(1, 1, 16, 16, device="meta"))
        assert counted.get_total_flops() == 2 * cost.macs(architecture, FIXED), architecture
        assert sum(p.numel() for p in on_meta.parameters()) == cost.params(architecture, FIXED)
        subnet = Subnet(FIXED, architecture).eval()
        randomise(subnet)
        expected = memory.peak_activation_bytes(architecture, FIXED, batch_size)
        assert tracked_peak(subnet, batch_size) == expected, architecture


def test_extracted_subnets_equal_the_supernet_bit_for_bit():
    supernet = Supernet(SPACE).eval()
    randomise(supernet)
    with torch.no_grad():
        for architecture in drawn(25):
            assert torch.equal(supernet(images(3), architecture), supernet.extract(architecture)(images(3)))


def test_the_store_has_a_reduction_for_every_side_of_squares_and_no_other():
    names = [name for name, _ in Supernet(SPACE).named_parameters() if "keys" in name and name.startswith("blocks.0.")]
    assert sorted(names) == [
        f"blocks.0.attn.keys_2.{part}.{kind}" for part in ("conv", "norm") for kind in ("bias", "weight")
    ]


def test_keys_are_squares_of_tokens_in_order():
    reduction = KeyReduction(2, 2)
    with torch.no_grad():
        reduction.conv.weight.zero_()
        reduction.conv.weight[0, 0, 0, 0] = reduction.conv.weight[1, 1, 1, 1] = 1
        reduction.norm = torch.nn.Identity()
        x = torch.arange(32.0).view(1, 16, 2)
        found = reduction(x)[0]
    assert found[:, 0].tolist() == [x[0, i, 0] for i in (0, 2, 8, 10)]
    assert found[:, 1].tolist() == [x[0, i, 1] for i in (5, 7, 13, 15)]


def test_what_hallucinates_by_copies_is_as_if_queries_and_keys_were_doubled():
    copy = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=1, hallucination_ratio=0.5, hallucination="copy")
    real = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=1)
    derived, whole = (Subnet(FIXED, Architecture(embed_dim=16, layers=(layer,))).eval() for layer in (copy, real))
    randomise(derived)
    weights = derived.state_dict()
    rows = weights["blocks.0.attn.qkv.weight"], weights["blocks.0.attn.qkv.bias"]
    gain = weights.pop("blocks.0.attn.hallucinate.gain")
    for name, value in zip(("weight", "bias"), rows, strict=True):
        q, k, v = value[:8], value[8:16], value[16:]
        weights[f"blocks.0.attn.qkv.{name}"] = torch.cat([q, q * gain, k, k, v])
    whole.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(derived(images(2)), whole(images(2)))


def test_images_of_other_sizes_have_more_keys():
    subnet = Subnet(FIXED, Architecture(embed_dim=16, layers=(LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=1),)))
    subnet.init_weights()
    subnet.set_input_size((24, 32))
    assert subnet(torch.randn(2, 1, 24, 32)).shape == (2, FIXED.num_classes)
    static = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=1, attention="static")
    subnet = Subnet(FIXED, Architecture(embed_dim=16, layers=(static,)), dynamic_img_size=True).eval()
    with pytest.raises(ArchitectureError, match="static maps of reduced keys fit images of one size"):
        subnet(torch.randn(1, 1, 24, 32))


def test_what_cannot_be_reduced_is_refused():
    with pytest.raises(ArchitectureError, match="key_tokens need class_token false and no reg_tokens"):
        backbone(key_tokens=4)
    with pytest.raises(ArchitectureError, match="key_tokens must be a square number, got 5"):
        backbone(class_token=False, key_tokens=5)
    with pytest.raises(SearchSpaceError, match=r"9 tokens are no grid that divides into key_tokens 4 \(C17\)"):
        space(every_choice(num_tokens=(16, 9), reducer=("pool",)), backbone=FIXED)
    with pytest.raises(SearchSpaceError, match="glad leaves no grid, on which key_tokens are reduced"):
        space(every_choice(num_tokens=(16, 4), reducer=("pool", "glad")), backbone=FIXED)


def test_linear_attention_stands_only_where_keys_are_not_reduced():
    searched = space(every_choice(num_tokens=(16,), reducer=("pool",), attention=("dynamic", "linear")), backbone=FIXED)
    rng = np.random.default_rng(0)
    assert {layer.attention for _ in range(20) for layer in searched.sample(rng).layers} == {"dynamic"}
