"""Law 1 and the store where a space has all stems."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import backbone
from live_storages import tracked_peak
from small_spaces import growing, randomise, stems

from nas.arch import cost, memory
from nas.arch.architecture import Architecture
from nas.model.supernet import Supernet
from nas.model.tree import SubnetParts, SubnetTree
from nas.space.space import SearchSpace

EVERY = ("patch", "conv", "overlap")


def images(batch_size: int, searched: SearchSpace) -> torch.Tensor:
    fixed = searched.backbone
    shape = (batch_size, fixed.in_chans, fixed.image_size, fixed.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(batch_size))


def random_supernet(searched: SearchSpace) -> Supernet:
    supernet = Supernet(searched).eval()
    randomise(supernet)
    return supernet


def assert_extracted_are_equal(supernet: Supernet, architectures: list[Architecture]) -> None:
    with torch.no_grad():
        for i, architecture in enumerate(architectures):
            x = images((1, 2, 7)[i % 3], supernet.space)
            assert torch.equal(supernet(x, architecture), supernet.extract(architecture)(x)), architecture


@pytest.mark.parametrize("patch", [2, 4, 8])
def test_extracted_subnet_equals_the_supernet_with_every_stem(patch):
    fixed = backbone(image_size=4 * patch, patch_size=patch, in_chans=3)
    searched = stems(embed_dim=(8, 20, 24, 40), stem=EVERY, backbone=fixed)
    rng = np.random.default_rng(0)
    drawn = [replace(searched.sample(rng), stem=stem) for _ in range(10) for stem in searched.stem]
    assert_extracted_are_equal(random_supernet(searched), drawn)


def test_a_stem_is_as_wide_as_the_first_layer_where_later_ones_are_wider():
    searched = growing(embed_dim=(8, 12), stem=EVERY)
    rng = np.random.default_rng(0)
    drawn = [replace(searched.sample(rng), stem=stem) for _ in range(12) for stem in searched.stem]
    assert any(len(set(a.widths)) > 1 for a in drawn)
    supernet = random_supernet(searched)
    assert_extracted_are_equal(supernet, drawn)
    found, failed = SubnetTree(SubnetParts(supernet, torch.device("cpu"), "fp32"), dict(enumerate(drawn))).answers(
        images(3, searched), range(len(drawn))
    )
    assert not failed
    for number, architecture in enumerate(drawn):
        subnet = supernet.extract(architecture)
        with torch.no_grad():
            assert torch.equal(found[number][1], subnet(images(3, searched)))
        assert cost.params(architecture, searched.backbone) == sum(p.numel() for p in subnet.parameters())
        assert tracked_peak(subnet, 2) == memory.peak_activation_bytes(architecture, searched.backbone, 2)


def test_stems_have_weights_of_their_own_and_leave_all_others_as_they_are():
    all_three, patch = (Supernet(stems(stem=stem), seed=3).state_dict() for stem in (EVERY, ("patch",)))
    conv = {f"patch_embed.proj.{i}.{kind}" for i in (0, 1, 3) for kind in ("weight", "bias")}
    overlap = {f"patch_embed.{part}.{kind}" for part in ("proj.overlap", "norm") for kind in ("weight", "bias")}
    assert {name for name in all_three if name not in patch} == conv | overlap
    assert all(torch.equal(all_three[name], value) for name, value in patch.items())
    for stem, own in (("conv", conv), ("overlap", overlap)):
        alone = Supernet(stems(stem=(stem,))).state_dict()
        assert {name for name in alone if "patch_embed" in name} == own


@pytest.mark.parametrize(
    ("stem", "own"), [("patch", "proj.weight"), ("conv", "proj.0.weight"), ("overlap", "norm.bias")]
)
def test_only_the_stem_in_use_learns(stem, own):
    supernet = Supernet(stems(stem=EVERY))
    supernet(images(2, supernet.space), replace(supernet.space.largest(), stem=stem)).sum().backward()
    learned = {name for name, p in supernet.named_parameters() if p.grad is not None and "patch_embed" in name}
    assert f"patch_embed.{own}" in learned
    assert len(learned) == {"patch": 2, "conv": 6, "overlap": 4}[stem]
