from itertools import product

import numpy as np
import pytest
import torch
from factories import backbone, plain
from small_spaces import every_choice, randomise, space
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas.arch import memory
from nas.arch import tiling as chunks
from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.backbone import Backbone
from nas.arch.operator import Rules
from nas.model.families.vit import Subnet

DEIT = Backbone(image_size=224, patch_size=16)


class LiveStorages(TorchDispatchMode):
    """Adds up the storages alive after every operation, weights excepted."""

    def __init__(self, subnet: Subnet, images: torch.Tensor) -> None:
        super().__init__()
        self.weights = {p.untyped_storage()._cdata for p in subnet.parameters()}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0
        self._add(images)

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights:
            self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return out


def tracked_peak(subnet: Subnet, images: torch.Tensor) -> int:
    with torch.no_grad():
        subnet(images)  # static layers make their maps once
        with LiveStorages(subnet, images) as tracked:
            subnet(images)
    return tracked.peak


@pytest.mark.parametrize("chunk_bytes", [chunks.CHUNK_BYTES, 20_000, 3_000])
@pytest.mark.parametrize("class_token", [True, False], ids=["class_token", "mean_pooled"])
@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_peak_activation_memory_is_that_of_the_live_storages(class_token, batch_size, chunk_bytes, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", chunk_bytes)
    domain = every_choice(hallucination_ratio=(0.0, 0.34, 0.75), num_heads=(1, 2, 4), mlp_ratio=(0.5, 1.0, 4.0))
    searched = space(
        domain, backbone=backbone(class_token=class_token), embed_dim=(16, 64), rules=Rules(static_after_reduction=True)
    )
    rng = np.random.default_rng(batch_size)
    images = torch.zeros(batch_size, 1, 16, 16)
    for _ in range(8):
        architecture = searched.sample(rng)
        subnet = Subnet(searched.backbone, architecture).eval()
        randomise(subnet)
        expected = memory.peak_activation_bytes(architecture, searched.backbone, batch_size)
        assert tracked_peak(subnet, images) == expected, architecture


def test_convolution_of_many_patches_is_counted_in_blocks_of_rows():
    fixed = Backbone(image_size=48, patch_size=4, in_chans=1, num_classes=3, head_dim=4)
    assert chunks.row_blocks(2, 144) == 8
    for batch_size, heads in product((1, 2), (2, 4)):
        layer = LayerChoice(
            num_tokens=144, num_heads=heads, mlp_ratio=0.5, hallucination_ratio=0.5, hallucination="mix_conv"
        )
        architecture = Architecture(embed_dim=8, layers=(layer,))
        subnet = Subnet(fixed, architecture).eval()
        expected = memory.peak_activation_bytes(architecture, fixed, batch_size)
        assert tracked_peak(subnet, torch.zeros(batch_size, 1, 48, 48)) == expected


def test_maps_that_are_shared_stay_alive_until_the_layer_behind_their_last_consumer():
    layer = LayerChoice(num_tokens=196, num_heads=3, mlp_ratio=0.5)
    shared = LayerChoice(num_tokens=196, num_heads=3, mlp_ratio=0.5, attention="shared")
    alone, sharing = (Architecture(embed_dim=192, layers=layers) for layers in ((layer,) * 3, (layer, shared, layer)))
    maps = 3 * 197**2
    plain_last, last = (
        [n for i, name, n in memory.live_values(a, DEIT) if (i, name) == (2, "mlp")] for a in (alone, sharing)
    )
    assert last[0] - plain_last[0] == maps


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
    subnet = Subnet(backbone(), plain()).eval()
    weights = sum(parameter.nbytes for parameter in subnet.parameters())
    peak = tracked_peak(subnet, torch.zeros(1, 1, 16, 16))
    assert memory.bytes_to_run(plain(), backbone()) == weights + peak
