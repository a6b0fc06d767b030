import pytest
import torch

from nas.model.layers.conv_pool import ConvTokenPool
from nas.model.layers.pool import TokenPool


def tokens(side: int, prefix: int = 1, channels: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, prefix + side**2, channels, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize(("side", "target"), [(4, 2), (4, 3), (5, 4), (7, 2), (3, 1)])
def test_pooling_keeps_the_class_token_bit_identical(prefix, side, target):
    x = tokens(side, prefix)
    for pool in (TokenPool(target**2, prefix), ConvTokenPool(6, target**2, prefix)):
        if isinstance(pool, ConvTokenPool):
            torch.nn.init.normal_(pool.conv.weight)
        pooled = pool(x)
        assert pooled.shape == (2, prefix + target**2, 6)
        assert torch.equal(pooled[:, :prefix], x[:, :prefix])


def test_pooling_averages_neighbours_of_the_grid():
    x = tokens(4)
    pooled = TokenPool(4, 1)(x)
    grid = x[:, 1:].reshape(2, 2, 2, 2, 2, 6)  # batch, row, row inside, column, column inside, channel
    assert torch.allclose(pooled[:, 1:], grid.mean(dim=(2, 4)).reshape(2, 4, 6), atol=1e-6)


def test_pooling_keeps_the_mean_where_windows_tile_the_grid():
    x = tokens(6, prefix=0)
    for target in (1, 2, 3):
        assert torch.allclose(TokenPool(target**2, 0)(x).mean(dim=1), x.mean(dim=1), atol=1e-6)


def test_conv_pool_starts_as_pool():
    x = tokens(4)
    assert torch.equal(ConvTokenPool(6, 4, 1)(x), TokenPool(4, 1)(x))


def test_conv_pool_adds_a_depth_wise_convolution_of_the_grid():
    x, pool = tokens(4), ConvTokenPool(6, 4, 1)
    torch.nn.init.normal_(pool.conv.weight)
    grid = x[:, 1:].transpose(1, 2).reshape(2, 6, 4, 4)
    corrected = grid + torch.nn.functional.conv2d(grid, pool.conv.weight, padding=1, groups=6)
    flat = torch.cat([x[:, :1], corrected.flatten(2).transpose(1, 2)], dim=1)
    assert torch.allclose(pool(x), TokenPool(4, 1)(flat), atol=1e-6)
    assert not torch.allclose(pool(x)[:, 1:], TokenPool(4, 1)(x)[:, 1:], atol=1e-2)


def test_one_pixel_moves_only_its_window():
    x = torch.zeros(1, 1 + 16, 6)
    x[0, 1 + 2] = 4.0  # row 0, column 2: the upper right window
    pooled = TokenPool(4, 1)(x)
    assert pooled[0, :, 0].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]
