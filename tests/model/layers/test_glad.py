import pytest
import torch

from nas.model.layers.glad import GlobalAggregation, average_tokens, grid_sides
from nas.model.layers.pool import TokenPool

DIM = 6


def tokens(patches: int, prefix: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, prefix + patches, DIM, generator=torch.Generator().manual_seed(seed))


def gathering(num_tokens: int, prefix: int = 1) -> GlobalAggregation:
    """With weights that act."""
    glad, generator = GlobalAggregation(DIM, num_tokens, prefix), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in glad.parameters():
            parameter.normal_(generator=generator)
    return glad


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize(("before", "after"), [(16, 4), (25, 16), (49, 4), (9, 1)])
def test_it_starts_as_pooling(before, after, prefix):
    x = tokens(before, prefix)
    assert torch.equal(GlobalAggregation(DIM, after, prefix)(x), TokenPool(after, prefix)(x))


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize(("before", "after"), [(16, 8), (16, 7), (16, 15), (7, 5), (13, 4), (8, 4), (2, 1), (25, 16)])
def test_any_token_count_and_the_class_token_bit_identical(before, after, prefix):
    x = tokens(before, prefix)
    reduced = gathering(after, prefix)(x)
    assert reduced.shape == (2, prefix + after, DIM)
    assert torch.equal(reduced[:, :prefix], x[:, :prefix])
    assert torch.isfinite(reduced).all()


def test_it_adds_what_the_queries_gather_from_all_normed_tokens():
    x, glad = tokens(16), gathering(4)
    z = torch.nn.functional.layer_norm(x[:, 1:], (DIM,), glad.norm.weight, glad.norm.bias, eps=1e-6)
    weights = torch.einsum("md,bpd->bmp", glad.queries, z / DIM**0.5).softmax(dim=-1)
    expected = TokenPool(4, 1)(x)[:, 1:] + glad.gamma * torch.einsum("bmp,bpd->bmd", weights, z)
    assert torch.allclose(glad(x)[:, 1:], expected, atol=1e-5)


def test_weights_of_a_query_sum_to_one():
    # Seen from outside: equal tokens come out as the token plus gamma times its norm, whatever the queries.
    x, glad = tokens(1, prefix=0).expand(2, 16, DIM), gathering(5, prefix=0)
    expected = x[:, :5] + glad.gamma * glad.norm(x[:, :5])
    assert torch.allclose(glad(x), expected, atol=1e-5)


def test_gathering_is_global_and_ignores_where_tokens_lie():
    # The average moves one window of four when the first patch changes; gathering moves them all.
    x, glad = tokens(16), gathering(4)
    changed = x.clone()
    changed[:, 1] += torch.arange(DIM)
    moved = (glad(changed) - glad(x))[:, 1:].abs().amax(dim=2)
    assert (moved > 1e-4).all()
    assert torch.count_nonzero((TokenPool(4, 1)(changed) - TokenPool(4, 1)(x)).abs().sum(dim=(0, 2))) == 1


def test_queries_learn_as_soon_as_gamma_acts():
    x = tokens(16)
    start = GlobalAggregation(DIM, 4, 1)
    start(x).square().sum().backward()
    assert not start.queries.grad.any()
    assert start.gamma.grad.abs().min() > 0
    acting = gathering(4)
    acting(x).square().sum().backward()
    for name, parameter in acting.named_parameters():
        assert parameter.grad.abs().max() > 1e-3, name


def test_weights_are_slices_of_those_of_their_token_count():
    with torch.device("meta"):
        skeleton = GlobalAggregation(DIM, 4, 1)
    generator = torch.Generator().manual_seed(0)
    shapes = {"queries_4": (4, 9), "queries_7": (7, 9), "gamma": (9,), "norm.weight": (9,), "norm.bias": (9,)}
    stored = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    sliced = skeleton.slice_from(stored)
    assert torch.equal(sliced["queries"], stored["queries_4"][:, :DIM])
    assert {name: value.shape for name, value in sliced.items()} == {
        name: parameter.shape for name, parameter in skeleton.named_parameters()
    }
    alone = GlobalAggregation(DIM, 4, 1)
    alone.load_state_dict(sliced)
    with torch.no_grad():
        assert torch.equal(torch.func.functional_call(skeleton, sliced, (tokens(16),)), alone(tokens(16)))


def test_first_values():
    torch.manual_seed(0)
    glad = GlobalAggregation(192, 49, 1)
    assert not glad.gamma.any()
    assert glad.queries.std().item() == pytest.approx(0.02, rel=0.05)
    assert (glad.norm.weight == 1).all()
    assert not glad.norm.bias.any()


@pytest.mark.parametrize(
    ("num_tokens", "sides"),
    [(196, (14, 14)), (98, (14, 7)), (49, (7, 7)), (150, (15, 10)), (147, None), (97, None), (1, (1, 1))],
)
def test_grid_of_a_token_count(num_tokens, sides):
    assert grid_sides(num_tokens) == sides


def test_a_pyramid_of_halves_averages_squares():
    x = tokens(16, prefix=0)
    halves = average_tokens(x, 8)
    assert torch.allclose(halves, x.unflatten(1, (8, 2)).mean(dim=2), atol=1e-6)  # side by side in a row
    assert torch.allclose(average_tokens(halves, 4), TokenPool(4, 0)(x), atol=1e-6)


@pytest.mark.parametrize(("before", "after"), [(16, 14), (16, 5), (13, 4), (16, 15), (18, 16)])
def test_counts_without_a_grid_that_fits_are_averaged_along_the_raster(before, after):
    raster = torch.arange(before, dtype=torch.float32)[None, :, None].expand(2, before, DIM)
    averaged = average_tokens(raster, after)[0, :, 0]
    assert (averaged.diff() > 0).all()
    windows = [range(i * before // after, -(-(i + 1) * before // after)) for i in range(after)]
    assert torch.allclose(averaged, torch.tensor([sum(w) / len(w) for w in windows]))
