"""A part of a block knows which slices of the store its weights are, and what they start from."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from nas.model.layers.part import FirstValue, Part


class Scaled(Part):
    """A projection that a plain ViT has, and a gain that it has not; the gain fits one size alone."""

    INITIAL: ClassVar[Mapping[str, FirstValue]] = {"gain": nn.init.ones_}
    NO_DECAY: ClassVar[frozenset[str]] = frozenset({"gain"})

    def __init__(self, size: int) -> None:
        super().__init__()
        self.proj = nn.Linear(size, size)
        self.gain = nn.Parameter(torch.zeros(size))

    def stored_name(self, name: str) -> str:
        return f"gain_{len(self.gain)}" if name == "gain" else name


def stored() -> dict[str, torch.Tensor]:
    return {"proj.weight": torch.randn(5, 5), "proj.bias": torch.randn(5), "gain_3": torch.randn(3)}


def test_weights_are_the_first_entries_of_the_stored_ones_in_every_dimension():
    whole = stored()
    found = Scaled(3).slice_from(whole)
    assert torch.equal(found["proj.weight"], whole["proj.weight"][:3, :3])
    assert torch.equal(found["gain"], whole["gain_3"])


def test_slices_are_views_so_that_gradients_reach_the_store():
    whole = {name: value.requires_grad_() for name, value in stored().items()}
    Scaled(3).slice_from(whole)["proj.bias"].sum().backward()
    assert whole["proj.bias"].grad.tolist() == [1, 1, 1, 0, 0]


def test_names_that_begin_so_are_left_out():
    assert set(Scaled(3).prefixes(stored(), but=("proj.",))) == {"gain"}


def test_own_weights_are_those_with_a_first_value():
    (own,) = Scaled(3).own_weights()
    assert (own.name, own.shape, own.decays) == ("gain_3", (3,), False)
    assert own.first_value(torch.zeros(2)).tolist() == [1, 1]
    assert list(nn.ReLU().parameters()) == list(Part().own_weights()) == []
