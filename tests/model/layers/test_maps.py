"""What attention modules share: slices of the joint projection, heads, chunks."""

import pytest
import torch

from nas.model.layers.maps import in_chunks, mix_values, slice_qkv, slice_values, to_heads

WIDTH, DIM = 6, 5


def stored() -> dict[str, torch.Tensor]:
    rows = torch.arange(3 * WIDTH, dtype=torch.float32)
    return {"qkv.weight": rows[:, None] + torch.arange(DIM) / 10, "qkv.bias": rows}


@pytest.mark.parametrize(("real", "heads"), [(6, 6), (2, 4), (2, 6)])
def test_queries_and_keys_are_of_the_real_heads_and_values_of_all(real, heads):
    found = slice_qkv(stored(), real, heads, 3)
    q, k, v = (torch.arange(start, start + size) for start, size in ((0, real), (6, real), (12, heads)))
    assert found["qkv.bias"].tolist() == torch.cat([q, k, v]).tolist()
    assert torch.equal(found["qkv.weight"], stored()["qkv.weight"][torch.cat([q, k, v]), :3])


def test_values_alone_are_the_last_third():
    found = slice_values(stored(), 4, 2)
    assert found["v.bias"].tolist() == [12, 13, 14, 15]
    assert torch.equal(found["v.weight"], stored()["qkv.weight"][12:16, :2])


def test_heads_are_neighbouring_channels_and_are_put_together_again():
    x = torch.randn(2, 3, 8)
    heads = to_heads(x, 4)
    assert torch.equal(heads[:, 1], x[:, :, 4:])
    same = torch.eye(3).expand(2, 2, 3, 3)
    assert torch.equal(mix_values(same, heads).flatten(2), x)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_chunks_change_nothing(size):
    x, y = torch.randn(7, 3), torch.randn(7, 3)
    whole = in_chunks(lambda a, b: (a + b, None, a * b), size, x, y)
    assert torch.equal(whole[0], x + y)
    assert whole[1] is None
    assert torch.equal(whole[2], x * y)
