from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from factories import backbone
from small_spaces import every_choice, listed, part_of, randomise, space

from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.backbone import Backbone
from nas.arch.operator import Rules
from nas.arch.operators import ATTENTION, HALLUCINATION, REDUCERS
from nas.base.errors import ArchitectureError, CheckpointError
from nas.model import supernet as supernet_file
from nas.model.supernet import Supernet
from nas.space.domain import LayerDomain
from nas.space.reasons import why_not_within
from nas.space.space import SearchSpace

SPACE = space()
BESIDE_A_CLASS_TOKEN = tuple(name for name, reducer in REDUCERS.items() if not reducer.refused(backbone()))


def images(batch_size: int, searched: SearchSpace = SPACE, seed: int = 0) -> torch.Tensor:
    fixed = searched.backbone
    shape = (batch_size, fixed.in_chans, fixed.image_size, fixed.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_supernet(searched: SearchSpace) -> Supernet:
    supernet = Supernet(searched)
    randomise(supernet)
    return supernet.eval()


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    return random_supernet(SPACE)


@pytest.fixture(params=[1, 2], ids=["one_thread", "two_threads"])
def threads(request) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def operator(layer: LayerChoice) -> tuple:
    return layer.attention, layer.hallucination, layer.reducer


def neighbours(architecture: Architecture) -> set[tuple]:
    layers = architecture.layers
    return {(operator(a), operator(b)) for a, b in pairwise(layers)}


def covering_all_neighbours(searched: SearchSpace) -> list[Architecture]:
    """Few architectures that hold every pair of operators that may follow each other."""
    chosen, seen = [], set()
    for architecture in sorted(listed(searched), key=lambda a: (-a.depth, a.digest)):
        if new := neighbours(architecture) - seen:
            chosen.append(architecture)
            seen |= new
    return chosen


def assert_extracted_are_equal(supernet: Supernet, architectures: list[Architecture], *sizes: int) -> None:
    with torch.no_grad():
        for i, architecture in enumerate(architectures):
            x = images(sizes[i % len(sizes)], supernet.space, seed=i)
            assert torch.equal(supernet(x, architecture), supernet.extract(architecture)(x)), architecture


# --- law 1 --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("threads")
def test_extracted_subnet_equals_the_supernet_bit_for_bit(supernet):
    rng = np.random.default_rng(0)
    drawn = [SPACE.sample(rng) for _ in range(25)] + [SPACE.smallest(), SPACE.largest()]
    assert_extracted_are_equal(supernet, drawn, 1, 2, 7)


def test_extracted_subnet_equals_the_supernet_for_all_neighbouring_operators():
    domain = every_choice(
        num_tokens=(16, 4), num_heads=(2,), hallucination_ratio=(0.0, 0.5), ffn_rank=(0.25,), mlp_ratio=(1.0,)
    )
    rules = Rules(static_after_reduction=True)
    searched = space(layers=(domain,) * 3, embed_dim=(16,), depth=(3,), rules=rules)
    chosen = covering_all_neighbours(searched)
    assert_extracted_are_equal(random_supernet(searched), chosen, 3)
    pairs = set().union(*map(neighbours, chosen))
    kinds = {kind[:2] for pair in pairs for kind in pair}
    # plain, static, linear; dynamic and shared with maps as they are or derived in one of three ways
    assert len(kinds) == 3 + 3 + 1 + 3
    assert {kind[2] for pair in pairs for kind in pair} == {None, *BESIDE_A_CLASS_TOKEN}
    walk, legal = searched.walk, set()
    for architecture in listed(searched):  # what may follow what, by the list of all architectures
        legal |= neighbours(architecture)
    assert pairs == legal
    assert len(pairs) > 150
    assert walk.count(walk.start, 3) == len({a.digest for a in listed(searched)})


@pytest.mark.usefixtures("threads")
def test_extracted_subnet_equals_the_supernet_at_the_size_of_real_images():
    domain = LayerDomain(
        num_tokens=(196, 100, 98, 49),
        reducer=BESIDE_A_CLASS_TOKEN,
        attention=tuple(ATTENTION),
        hallucination_ratio=(0.0, 0.5),
        hallucination=tuple(HALLUCINATION),
        num_heads=(2, 3),
        ffn_rank=(0.25, 1.0),
        mlp_ratio=(3.0, 4.0),
    )
    searched = SearchSpace(
        name="deit_like",
        backbone=Backbone(image_size=224, patch_size=16, num_classes=100),
        embed_dim=(144, 192),
        depth=(2, 3),
        layers=(domain,) * 3,
    )
    rng = np.random.default_rng(0)
    assert_extracted_are_equal(random_supernet(searched), [searched.sample(rng) for _ in range(6)], 2, 5)


def test_mean_pooled_subnet_equals_the_supernet():
    searched = space(backbone=backbone(class_token=False))
    rng = np.random.default_rng(0)
    assert_extracted_are_equal(random_supernet(searched), [searched.sample(rng) for _ in range(15)], 4)


# --- weights: sharing, gradients, ownership -----------------------------------------------------------------


def numbered(searched: SearchSpace) -> Supernet:
    """A supernet whose every weight is its own number."""
    supernet, offset = Supernet(searched), 0
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.copy_(torch.arange(offset, offset + parameter.numel()).reshape(parameter.shape))
            offset += parameter.numel()
    assert offset < 2**24, "whole numbers are exact in fp32"
    return supernet


def slices(supernet: Supernet, architecture: Architecture) -> dict[str, torch.Tensor]:
    """Views of the store that are an architecture's parameters."""
    return supernet._sliced(supernet._skeleton(architecture, 0.0, False))


def used_elements(supernet: Supernet, architecture: Architecture) -> dict[str, torch.Tensor]:
    """For every weight of a numbered supernet, which of its elements an architecture uses."""
    used = torch.cat([value.detach().flatten() for value in slices(supernet, architecture).values()])
    return {name: torch.isin(p.detach(), used) for name, p in supernet.named_parameters()}


def test_gradients_reach_exactly_the_slices_in_use():
    searched = space(backbone=backbone(class_token=False))  # with a class token, the last layer's other rows are idle
    supernet, rng = random_supernet(searched), np.random.default_rng(0)
    numbers, kinds = numbered(searched), set()
    for _ in range(25):
        architecture = searched.sample(rng)
        kinds |= {operator(layer)[:2] for layer in architecture.layers}
        supernet.zero_grad()
        supernet(images(4, searched), architecture).square().sum().backward()
        masks = used_elements(numbers, architecture)
        assert sum(int(mask.sum()) for mask in masks.values()) == sum(
            p.numel() for p in supernet.extract(architecture).parameters()
        )
        for name, parameter in supernet.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            assert not gradient[~masks[name]].any(), name
            used = gradient[masks[name]]
            if name.endswith("qkv.bias") and not is_linear(architecture, name):
                # The same for every key of a row: softmax takes it out.
                third = parameter.numel() // 3
                queries_and_values = torch.ones(3, third, dtype=torch.bool)
                queries_and_values[1] = False
                used = gradient[masks[name] & queries_and_values.flatten()]
            if used.numel():
                assert (used != 0).float().mean() > 0.95, name
    assert len(kinds) >= 8


def is_linear(architecture: Architecture, name: str) -> bool:
    return architecture.layers[int(name.split(".")[1])].attention == "linear"


def test_plain_sum_of_logits_teaches_every_tensor_in_use():
    searched = space(backbone=backbone(class_token=False))
    supernet = random_supernet(searched)
    architecture = searched.sample(np.random.default_rng(3))
    supernet(images(4, searched), architecture).sum().backward()
    masks = used_elements(numbered(searched), architecture)
    for name, parameter in supernet.named_parameters():
        assert masks[name].any() == (parameter.grad is not None and parameter.grad.any()), name


def test_architectures_that_share_a_layer_see_each_others_updates():
    supernet = random_supernet(SPACE)
    layer = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=2.0)
    narrow = Architecture(embed_dim=16, layers=(layer, replace(layer, attention="static")))
    wide = Architecture(embed_dim=24, layers=(layer, layer, replace(layer, attention="shared")))
    extracted, x = supernet.extract(wide), images(2)
    with torch.no_grad():
        before = supernet(x, wide)
    optimiser = torch.optim.SGD(supernet.parameters(), lr=0.1)
    supernet(x, narrow).square().sum().backward()
    optimiser.step()
    with torch.no_grad():
        assert not torch.allclose(supernet(x, wide), before, atol=1e-3)
        assert torch.equal(extracted(x), before)
        assert torch.equal(supernet(x, wide), supernet.extract(wide)(x))


def test_extracted_subnet_owns_its_storage(supernet):
    stored = {p.untyped_storage().data_ptr() for p in supernet.parameters()}
    rng = np.random.default_rng(0)
    for architecture in [SPACE.largest(), SPACE.smallest(), *(SPACE.sample(rng) for _ in range(10))]:
        subnet = supernet.extract(architecture)
        assert not subnet.training
        for name, parameter in subnet.named_parameters():
            assert parameter.untyped_storage().data_ptr() not in stored, name
            assert parameter.untyped_storage().nbytes() == 4 * parameter.numel(), name
            assert parameter.is_contiguous()
            assert parameter.is_leaf
            assert parameter.requires_grad


def test_slices_are_the_first_channels_and_whole_heads(supernet):
    layer = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=0.5)
    mixed = replace(layer, num_heads=3, hallucination_ratio=1 / 3, hallucination="mix_conv")
    static = replace(layer, attention="static")
    sliced = slices(supernet, Architecture(embed_dim=16, layers=(layer, mixed, static)))
    stored = dict(supernet.named_parameters())
    q, k, v = stored["blocks.0.attn.qkv.weight"].split(24)
    assert torch.equal(sliced["blocks.0.attn.qkv.weight"], torch.cat([q[:16], k[:16], v[:16]])[:, :16])
    q, k, v = stored["blocks.1.attn.qkv.weight"].split(24)
    assert torch.equal(sliced["blocks.1.attn.qkv.weight"], torch.cat([q[:16], k[:16], v])[:, :16])
    assert torch.equal(sliced["blocks.0.mlp.fc1.weight"], stored["blocks.0.mlp.fc1.weight"][:8, :16])
    v = stored["blocks.2.attn.qkv.weight"].split(24)[2]
    assert torch.equal(sliced["blocks.2.attn.v.weight"], v[:16, :16])
    assert torch.equal(sliced["blocks.2.attn.static_map"], stored["blocks.2.attn.static_map_16"][:2])
    assert torch.equal(sliced["blocks.1.attn.hallucinate.mix"], stored["blocks.1.attn.hallucinate_2.mix"][:1])
    assert sliced["pos_embed"].untyped_storage().data_ptr() == stored["pos_embed"].untyped_storage().data_ptr()


@pytest.mark.parametrize("attention", ["dynamic", "shared"])
def test_what_derives_heads_is_kept_apart_by_the_number_of_real_heads(attention):
    """Derived head j is head R + j: another head, with other values, for every R."""
    numbers = numbered(SPACE)
    layer = LayerChoice(num_tokens=16, num_heads=3, mlp_ratio=2.0)

    def used(derived: int, heads: int, variant: str) -> dict[str, torch.Tensor]:
        mixed = replace(layer, num_heads=heads, hallucination_ratio=derived / heads, hallucination=variant)
        second = replace(mixed, attention=attention)
        masks = used_elements(numbers, Architecture(embed_dim=16, layers=(mixed, second)))
        return {name: mask for name, mask in masks.items() if name.startswith("blocks.1.attn.hall") and mask.any()}

    for variant in HALLUCINATION:
        one, two, both = used(2, 3, variant), used(1, 3, variant), used(1, 2, variant)
        assert one
        assert one.keys().isdisjoint(two)
        assert one.keys() == both.keys()  # of a single real head
        assert all((one[name] >= both[name]).all() for name in one)


def test_static_maps_are_kept_apart_by_token_count(supernet):
    names = {name for name in supernet.state_dict() if name.startswith("blocks.1.attn.static_map")}
    assert names == {f"blocks.1.attn.static_map_{n}" for n in (16, 9, 6, 4)}
    assert supernet.state_dict()["blocks.1.attn.static_map_9"].shape == (3, 10, 10)
    assert {"pos_embed", "cls_token", *names} <= supernet.no_weight_decay()


def test_queries_are_kept_apart_by_token_count_and_factors_share_the_bias(supernet):
    stored = supernet.state_dict()
    queries = {name for name in stored if ".reducer.queries" in name and name.startswith("blocks.1.")}
    assert queries == {f"blocks.1.reducer.queries_{n}" for n in (9, 6, 4)}
    layer = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=2.0, ffn_rank=0.25)
    sliced = slices(supernet, Architecture(embed_dim=16, layers=(layer, layer)))
    assert torch.equal(sliced["blocks.1.mlp.down.weight"], stored["blocks.1.mlp.down.weight"][:4, :32])
    assert torch.equal(sliced["blocks.1.mlp.up.bias"], stored["blocks.1.mlp.fc2.bias"][:16])


def test_dense_is_the_plain_vit_of_the_greatest_sizes(supernet):
    dense = supernet.dense()
    assert {layer.attention for layer in dense.architecture.layers} == {"dynamic"}
    assert dense.architecture not in SPACE or dense.architecture == SPACE.largest()
    assert torch.equal(dense.blocks[3].mlp.fc2.weight, supernet.state_dict()["blocks.3.mlp.fc2.weight"])


# --- the object ---------------------------------------------------------------------------------------------


def test_initial_weights_are_a_function_of_the_seed():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one, same, other = (Supernet(SPACE, seed=seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.rand(3), expected)  # the global generator is left alone
    assert one.keys() == same.keys()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])


def test_architecture_of_another_space_is_refused(supernet):
    layer = LayerChoice(num_tokens=16, num_heads=4, mlp_ratio=2)
    wrong = Architecture(embed_dim=24, layers=(layer, layer))
    for use in (lambda: supernet(images(1), wrong), lambda: supernet.extract(wrong)):
        with pytest.raises(ArchitectureError, match=f"{wrong.digest} is not in space small: layer 0"):
            use()


def test_skeletons_are_few_weightless_and_not_state(monkeypatch):
    monkeypatch.setattr(supernet_file, "CACHED_SKELETONS", 4)
    monkeypatch.setattr(supernet_file, "CACHED_BLOCKS", 6)
    supernet = random_supernet(SPACE)
    names = list(supernet.state_dict())
    rng = np.random.default_rng(0)
    drawn = [SPACE.sample(rng) for _ in range(12)]
    with torch.no_grad():
        first = [supernet(images(2), architecture) for architecture in drawn]
        assert all(torch.equal(supernet(images(2), a), y) for a, y in zip(drawn, first, strict=True))
    assert len(supernet._skeletons) <= 4
    assert len(supernet._blocks) <= 6
    assert all(p.is_meta for kept in supernet._skeletons.values() for p in kept.module.parameters())
    assert list(supernet.state_dict()) == names == [name for name, _ in supernet.named_parameters()]
    assert len(list(supernet.modules())) == len(list(Supernet(SPACE).modules()))


def test_skeletons_share_layers_and_none_has_one_twice():
    supernet = Supernet(SPACE)
    layer = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=2)
    three, two = (Architecture(embed_dim=24, layers=(layer,) * depth) for depth in (3, 2))
    longer, shorter = (list(supernet._skeleton(a, 0.0, False).module.blocks) for a in (three, two))
    assert len(set(longer)) == 3
    assert shorter == longer[:2]
    for changed in ((two, 0.0, True), (two, 0.2, False)):
        assert set(longer[1:]).isdisjoint(supernet._skeleton(*changed).module.blocks)


def test_layers_that_skeletons_share_follow_the_mode_of_each_pass():
    supernet, layer = random_supernet(SPACE), LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=2)
    three, two = (Architecture(embed_dim=24, layers=(layer,) * depth) for depth in (3, 2))
    for training, architecture in ((True, three), (False, two), (True, three), (False, three)):
        supernet.train(training)(images(1), architecture)
        module = supernet._skeleton(architecture, 0.0, False).module
        assert {part.training for part in module.modules()} == {training}


def test_skeleton_follows_the_mode_of_the_supernet():
    supernet, architecture, x = random_supernet(SPACE), SPACE.largest(), images(8)
    with torch.no_grad():
        evaluated = supernet(x, architecture)
        supernet.train()
        torch.manual_seed(0)
        assert not torch.allclose(supernet(x, architecture, drop_path=0.9), evaluated)
        supernet.eval()
        assert torch.equal(supernet(x, architecture, drop_path=0.9), evaluated)


def test_state_dict_restores_every_architecture(supernet):
    other = Supernet(SPACE, seed=9).eval()
    other.load_state_dict(supernet.state_dict())
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for _ in range(5):
            architecture = SPACE.sample(rng)
            assert torch.equal(other(images(2), architecture), supernet(images(2), architecture))


# --- a space that is a part of another ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_architectures_of_a_part_of_a_space_have_the_same_logits_with_its_slices_of_the_weights(supernet, seed):
    rng = np.random.default_rng(seed)
    part = part_of(SPACE, rng)
    assert why_not_within(part, SPACE) == []
    sliced = Supernet(part, seed=1).eval()
    sliced.load_slices(supernet.state_dict())
    with torch.no_grad():
        for i in range(6):
            architecture, x = part.sample(rng), images(3, seed=i)
            assert torch.equal(sliced(x, architecture), supernet(x, architecture)), architecture
            assert torch.equal(sliced.extract(architecture)(x), supernet(x, architecture)), architecture


def test_weights_of_a_smaller_space_are_refused_by_name(supernet):
    smaller = Supernet(space(every_choice(attention=("dynamic",)), embed_dim=(16,)))
    with pytest.raises(CheckpointError) as refused:
        supernet.load_slices(smaller.state_dict())
    assert "blocks.0.attn.static_map_16 is missing" in refused.value.message
    assert "pos_embed: (1, 17, 16) has no (1, 17, 24)" in refused.value.message
