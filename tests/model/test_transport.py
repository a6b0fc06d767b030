import pytest
import torch
from torch.nn import functional

from nas.model.transport import resize_map, transport_map

T = 17


def some_maps(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed)).softmax(-1)


SIDES = [(4, 2), (4, 3), (7, 3), (5, 1), (14, 10), (4, 4), ((6, 6), (6, 3)), ((9, 4), (5, 3)), ((16, 1), (7, 1))]


@pytest.mark.parametrize(("side_from", "side_to"), SIDES)
@pytest.mark.parametrize("prefix", [0, 1])
def test_transported_rows_sum_to_one(side_from, side_to, prefix):
    many, few = (prefix + (side**2 if isinstance(side, int) else side[0] * side[1]) for side in (side_from, side_to))
    moved = transport_map(some_maps(2, many, many), side_from, side_to, prefix)
    assert moved.shape == (2, few, few)
    assert torch.allclose(moved.sum(dim=-1), torch.ones(2, few, dtype=torch.double), atol=1e-12)
    assert (moved > 0).all()


def test_a_side_is_that_of_a_square():
    maps = some_maps(2, 50, 50)
    assert torch.equal(transport_map(maps, 7, 3, 1), transport_map(maps, (7, 7), (3, 3), 1))


def test_transport_to_the_same_grid_changes_nothing():
    maps = some_maps(2, T, T)
    assert torch.allclose(transport_map(maps, 4, 4, 1), maps)


def test_transport_averages_queries_and_adds_keys_window_by_window():
    maps = some_maps(1, T, T)
    moved = transport_map(maps, 4, 2, 1)[0]
    windows = [[0], [1, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]]
    for i, queries in enumerate(windows):
        for j, keys in enumerate(windows):
            assert torch.allclose(moved[i, j], maps[0, queries][:, keys].sum(dim=1).mean())


def test_transport_of_every_token_to_itself_is_the_same_on_the_coarser_grid():
    assert torch.allclose(transport_map(torch.eye(17)[None], 4, 2, 1), torch.eye(5)[None])


@pytest.mark.parametrize("grid", [(3, 3), (7, 4)])
def test_transport_averages_queries_as_pooling_does(grid):
    # Patches look at the class token and at the first patch, in shares that differ by query.
    share = torch.linspace(0.1, 0.9, 49, dtype=torch.double)
    maps = torch.zeros(1, 50, 50, dtype=torch.double)
    maps[0, :, 0] = 1
    maps[0, 1:, 0] -= share
    maps[0, 1:, 1] = share
    pooled = functional.adaptive_avg_pool2d(share.view(1, 7, 7), grid).flatten()
    assert torch.allclose(transport_map(maps, (7, 7), grid, 1)[0, 1:, 0], 1 - pooled)


GRIDS = ((4, 4), (6, 6), (3, 3), (2, 5), (8, 8), (1, 1), (7, 1))


@pytest.mark.parametrize("wanted", GRIDS)
@pytest.mark.parametrize("prefix", [0, 1])
def test_a_resized_map_has_the_new_grid_rows_that_sum_to_1_and_no_negative_entry(wanted, prefix):
    resized = resize_map(some_maps(2, 16 + prefix, 16 + prefix), (4, 4), wanted, prefix)
    tokens = wanted[0] * wanted[1] + prefix
    assert resized.shape == (2, tokens, tokens)
    assert torch.allclose(resized.sum(dim=2), torch.ones(2, tokens, dtype=torch.double))
    assert resized.min() >= 0


def test_a_map_of_the_same_grid_is_the_same_bit_for_bit():
    maps = some_maps(3, 17, 17)
    assert torch.equal(resize_map(maps, (4, 4), (4, 4), 1), maps)


def test_a_map_resized_up_and_down_again_is_back():
    maps = some_maps(3, 17, 17)
    larger = resize_map(maps, (4, 4), (8, 12), 1)  # whole cells in a cell, so that nothing is blurred
    assert torch.allclose(resize_map(larger, (8, 12), (4, 4), 1), maps, atol=1e-6)


def test_a_resized_map_weighs_by_area():
    """Two cells to three: the middle one lies half in either, and has a third of the weight of each."""
    looks_left = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert torch.allclose(
        resize_map(looks_left, (2, 1), (3, 1), 0),
        torch.tensor([[[2, 1, 0], [1, 1, 1], [0, 1, 2]]]) / torch.tensor([3, 3, 3]),
    )
    assert torch.allclose(
        resize_map(torch.eye(3)[None], (3, 1), (2, 1), 0), torch.tensor([[[5 / 6, 1 / 6], [1 / 6, 5 / 6]]])
    )
