import torch
from factories import backbone
from small_spaces import every_choice, growing, space

from nas.model.families.vit import Subnet
from nas.model.store import first_weights, plain_largest
from nas.model.supernet import Supernet
from nas.space.space import SearchSpace


def shapes(searched: SearchSpace) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in first_weights(searched)[0].items()}


def test_a_layer_is_stored_as_wide_as_it_can_become():
    searched = growing(embed_dim=(8, 12))  # layers of 12, 16 and 16 channels at most
    found = shapes(searched)
    assert searched.greatest_widths == (12, 16, 16)
    assert [found[f"blocks.{i}.norm1.weight"] for i in range(3)] == [(12,), (16,), (16,)]
    assert [found[f"blocks.{i}.widen.weight"] for i in (1, 2)] == [(16, 12), (16, 16)]
    assert found["blocks.1.reducer.queries_4"] == (4, 12)  # before it widens
    assert (found["cls_token"], found["norm.weight"], found["head.weight"]) == ((1, 1, 12), (16,), (10, 16))


def test_dense_is_a_plain_vit_of_the_first_width():
    searched = growing(embed_dim=(8, 12))
    dense = Supernet(searched).dense()
    assert dense.architecture == plain_largest(searched)
    assert dense.architecture.widths == (12, 12, 12)
    assert dense(torch.zeros(2, 1, 16, 16)).shape == (2, 10)


def test_without_widths_by_layer_the_store_has_a_plain_vit_and_what_operators_add():
    searched = space(every_choice())
    plain = Subnet(backbone(), plain_largest(searched))
    found = shapes(searched)
    assert {name: tuple(weight.shape) for name, weight in plain.named_parameters()}.items() <= found.items()
