import numpy as np
import pytest
from factories import backbone, plain, varied
from small_spaces import every_choice, randomise, space

from nas.arch import cost, memory
from nas.arch import tiling as chunks
from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.backbone import Backbone
from nas.arch.operator import Rules

DEIT = Backbone(image_size=224, patch_size=16)


PEAKS = {  # bytes of `varied()` by (images, `CHUNK_BYTES`), of the live storages
    (1, chunks.CHUNK_BYTES): 19_180,
    (1, 3_000): 19_180,
    (3, 20_000): 58_152,
    (5, chunks.CHUNK_BYTES): 96_920,
    (5, 3_000): 95_900,
}


@pytest.mark.parametrize(("batch_size", "chunk_bytes"), PEAKS)
def test_peak_of_every_operator_is_as_it_was_tracked(batch_size, chunk_bytes, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", chunk_bytes)
    assert memory.peak_activation_bytes(varied(), backbone(), batch_size) == PEAKS[batch_size, chunk_bytes]


@pytest.mark.slow
@pytest.mark.parametrize("chunk_bytes", [chunks.CHUNK_BYTES, 20_000, 3_000])
@pytest.mark.parametrize("class_token", [True, False], ids=["class_token", "mean_pooled"])
@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_peak_activation_memory_is_that_of_the_live_storages(class_token, batch_size, chunk_bytes, monkeypatch):
    from live_storages import tracked_peak  # imports torch, as below: what is quick to test needs none

    from nas.model.families.vit import Subnet

    monkeypatch.setattr(chunks, "CHUNK_BYTES", chunk_bytes)
    domain = every_choice(hallucination_ratio=(0.0, 0.34, 0.75), num_heads=(1, 2, 4), mlp_ratio=(0.5, 1.0, 4.0))
    searched = space(
        domain, backbone=backbone(class_token=class_token), embed_dim=(16, 64), rules=Rules(static_after_reduction=True)
    )
    rng = np.random.default_rng(batch_size)
    for architecture in (varied(), *(searched.sample(rng) for _ in range(8))):
        subnet = Subnet(searched.backbone, architecture).eval()
        randomise(subnet)
        expected = memory.peak_activation_bytes(architecture, searched.backbone, batch_size)
        assert tracked_peak(subnet, batch_size) == expected, architecture


MANY_PATCHES = Backbone(image_size=48, patch_size=4, in_chans=1, num_classes=3, head_dim=4)
# bytes by (images, heads), of the live storages
IN_BLOCKS = {(1, 2): 448_276, (1, 4): 892_464, (2, 2): 910_360, (2, 4): 1_765_888}


def convolved(num_heads: int) -> Architecture:
    """One layer whose maps of 144 patches are convolved."""
    halved = {"hallucination_ratio": 0.5, "hallucination": "mix_conv"}
    layer = LayerChoice(num_tokens=144, num_heads=num_heads, mlp_ratio=0.5, **halved)
    return Architecture(embed_dim=8, layers=(layer,))


@pytest.mark.parametrize(("batch_size", "heads"), IN_BLOCKS)
def test_convolution_of_many_patches_is_counted_in_blocks_of_rows(batch_size, heads):
    assert chunks.row_blocks(2, 144) == 8
    peak = memory.peak_activation_bytes(convolved(heads), MANY_PATCHES, batch_size)
    assert peak == IN_BLOCKS[batch_size, heads]


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "heads"), IN_BLOCKS)
def test_convolution_of_many_patches_needs_what_its_blocks_do(batch_size, heads):
    from live_storages import tracked_peak

    from nas.model.families.vit import Subnet

    assert tracked_peak(Subnet(MANY_PATCHES, convolved(heads)).eval(), batch_size) == IN_BLOCKS[batch_size, heads]


def test_maps_that_are_shared_stay_alive_until_the_layer_behind_their_last_consumer():
    layer = LayerChoice(num_tokens=196, num_heads=3, mlp_ratio=0.5)
    shared = LayerChoice(num_tokens=196, num_heads=3, mlp_ratio=0.5, attention="shared")
    alone, sharing = (Architecture(embed_dim=192, layers=layers) for layers in ((layer,) * 3, (layer, shared, layer)))
    maps = 3 * 197**2
    plain_last, last = (
        [n for i, name, n in memory.live_values(a, DEIT) if (i, name) == (2, "mlp")] for a in (alone, sharing)
    )
    assert last[0] - plain_last[0] == maps


def test_a_norm_keeps_two_numbers_a_token_beside_its_input_and_result():
    """Never the peak, which is all that storages are compared with."""
    tokens, images = 2 * 17, 2 * 16**2
    live = {name: n for i, name, n in memory.live_values(plain(), backbone(), 2) if i in (0, None)}
    assert live["norm1"] == live["norm"] == images + 2 * 24 * tokens + 2 * tokens


def test_peak_activation_memory_follows_precision_and_batch():
    one = memory.peak_activation_bytes(plain(), backbone())
    assert memory.peak_activation_bytes(plain(), backbone(), bytes_per_value=2) * 2 == one
    assert memory.peak_activation_bytes(plain(), backbone(), batch_size=8) == 8 * one


def test_fewer_tokens_need_less_memory_and_the_peak_names_its_layer():
    layer = LayerChoice(num_tokens=196, num_heads=3, mlp_ratio=4)
    fewer = LayerChoice(num_tokens=49, num_heads=3, mlp_ratio=4, reducer="pool")
    early = Architecture(embed_dim=192, layers=(fewer, *(LayerChoice(num_tokens=49, num_heads=3, mlp_ratio=4),) * 3))
    late = Architecture(embed_dim=192, layers=(layer,) * 3 + (fewer,))
    assert memory.peak_activation_bytes(early, DEIT) < memory.peak_activation_bytes(late, DEIT)
    index, operation, values = max(memory.live_values(late, DEIT), key=lambda entry: entry[2])
    assert (index, operation) == (0, "mlp")
    assert 4 * values == memory.peak_activation_bytes(late, DEIT)


def test_what_it_takes_to_run_is_the_peak_of_one_image_and_the_parameters():
    peak = memory.peak_activation_bytes(plain(), backbone())
    assert memory.bytes_to_run(plain(), backbone()) == 4 * cost.params(plain(), backbone()) + peak


@pytest.mark.slow
def test_what_it_takes_to_run_is_alive():
    from live_storages import tracked_peak

    from nas.model.families.vit import Subnet

    subnet = Subnet(backbone(), plain()).eval()
    weights = sum(parameter.nbytes for parameter in subnet.parameters())
    assert memory.bytes_to_run(plain(), backbone()) == weights + tracked_peak(subnet, 1)
