import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from factories import backbone
from timm.layers import Mlp
from timm.models.pvt_v2 import MlpWithDepthwiseConv
from torch.nn import functional

from nas.arch.architecture import LayerChoice
from nas.model.layers.feed_forward import (
    CompactMlp,
    ConvMlp,
    GridConv,
    activation_aware_factors,
    build_feed_forward,
    svd_factors,
)
from nas.model.layers.part import Frame

DIM, HIDDEN, RANK = 12, 24, 4


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def built() -> CompactMlp:
    mlp = CompactMlp(DIM, HIDDEN, RANK).eval()
    with torch.no_grad():
        for i, parameter in enumerate(mlp.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=i) / 3)
    return mlp


def stored() -> dict[str, torch.Tensor]:
    """Of a supernet with twice the channels, hidden channels and rank."""
    shapes = {"fc1.weight": (48, 24), "fc1.bias": (48,), "fc2.weight": (24, 48), "fc2.bias": (24,)}
    shapes |= {"down.weight": (8, 48), "up.weight": (24, 8)}
    return {name: normal(*shape, seed=i).requires_grad_() for i, (name, shape) in enumerate(shapes.items())}


def layer(**changes) -> LayerChoice:
    return LayerChoice(**{"num_tokens": 16, "num_heads": 3, "mlp_ratio": 2, **changes})


def test_rank_decides_the_feed_forward():
    full, compact = (build_feed_forward(DIM, layer(ffn_rank=rank), backbone()) for rank in (1, 0.25))
    assert isinstance(full, Mlp)
    assert (full.fc1.out_features, full.fc2.out_features) == (24, DIM)
    assert isinstance(compact, CompactMlp)
    shapes = {name: tuple(p.shape) for name, p in compact.named_parameters()}
    assert shapes == {
        "fc1.weight": (24, DIM),
        "fc1.bias": (24,),
        "down.weight": (3, 24),
        "up.weight": (DIM, 3),
        "up.bias": (DIM,),
    }


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_a_convolution_mixes_patches_on_their_grid_and_passes_the_prefix_by(prefix):
    convolution, x = GridConv(HIDDEN, prefix), normal(2, prefix + 12, HIDDEN)
    frame = Frame((3, 4), (3, 4), (2, 2), (2, 2))
    assert not convolution.bias.any()
    with torch.no_grad():
        convolution.weight.zero_()[:, :, 1, 1] = 1
        assert torch.equal(convolution(x, frame), x)
        assert torch.equal(convolution(x[:, : prefix + 9]), x[:, : prefix + 9])
        convolution.weight.copy_(normal(HIDDEN, 1, 3, 3))
        convolution.bias.copy_(normal(HIDDEN))
        found = convolution(x, frame)
        assert torch.equal(found[:, :prefix], x[:, :prefix])
        weight, padded = convolution.weight[:, 0], torch.zeros(2, 5, 6, HIDDEN)
        padded[:, 1:4, 1:5] = x[:, prefix:].view(2, 3, 4, HIDDEN)
        for row, column in product(range(3), range(4)):
            window = padded[:, row : row + 3, column : column + 3]
            expected = convolution.bias + torch.einsum("bijf,fij->bf", window, weight)
            assert torch.allclose(found[:, prefix + 4 * row + column], expected, atol=1e-5)


def test_without_a_prefix_it_is_timms_feed_forward_of_pvt():
    theirs = MlpWithDepthwiseConv(DIM, HIDDEN)
    ours = build_feed_forward(DIM, layer(ffn_conv=True), backbone(class_token=False))
    ours.load_state_dict(theirs.state_dict())
    x, frame = normal(2, 12, DIM), Frame((3, 4), (3, 4), (4, 4), (4, 4))
    assert torch.equal(ours(x, frame), theirs(x, (3, 4)))
    assert torch.equal(ours(x[:, :9]), theirs(x[:, :9], (3, 3)))


@pytest.mark.parametrize("rank", [1, 0.25])
def test_both_feed_forwards_are_as_without_a_convolution_where_it_changes_nothing(rank):
    plain, convolved = (build_feed_forward(DIM, layer(ffn_rank=rank, ffn_conv=on), backbone()) for on in (False, True))
    assert isinstance(convolved, ConvMlp if rank == 1 else CompactMlp)
    assert not convolved.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    assert {name for name, _ in convolved.named_parameters()} - {name for name, _ in plain.named_parameters()} == {
        "dwconv.weight", "dwconv.bias"
    }  # fmt: skip
    x = normal(2, 17, DIM)
    with torch.no_grad():
        convolved.dwconv.weight.zero_()[:, :, 1, 1] = 1
    assert torch.equal(convolved(x), plain(x))


def test_a_convolution_starts_as_that_of_pvt():
    torch.manual_seed(0)
    weight = GridConv(4096, 0).weight
    assert weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.02)
    assert abs(weight.mean().item()) < 0.01


def test_compact_is_timms_feed_forward_with_the_product_of_the_factors():
    compact, full = built(), Mlp(DIM, HIDDEN).eval()
    with torch.no_grad():
        full.fc1.load_state_dict(compact.fc1.state_dict())
        full.fc2.weight.copy_(compact.up.weight @ compact.down.weight)
        full.fc2.bias.copy_(compact.up.bias)
    x = normal(2, 17, DIM)
    assert torch.allclose(compact(x), full(x), atol=1e-6)


@pytest.mark.slow
def test_it_can_be_imported_before_timm():
    command = [sys.executable, "-c", "import nas.model.layers.feed_forward"]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("rank", "dim", "hidden"), [(96, 192, 768), (24, 64, 256)])
def test_the_product_of_the_factors_starts_with_timms_spread(rank, dim, hidden):
    torch.manual_seed(0)
    mlp = CompactMlp(dim, hidden, rank)
    stored_down, stored_up = torch.empty(rank, hidden), torch.empty(dim, rank)
    product = CompactMlp.INITIAL["up.weight"](stored_up) @ CompactMlp.INITIAL["down.weight"](stored_down)
    for weight in (product, mlp.up.weight @ mlp.down.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_slices_are_views_and_the_bias_is_the_full_ones():
    weights = stored()
    sliced = CompactMlp(DIM, HIDDEN, RANK).slice_from(weights)
    assert set(sliced) == {"fc1.weight", "fc1.bias", "down.weight", "up.weight", "up.bias"}
    for name, value in sliced.items():
        source = weights["fc2.bias" if name == "up.bias" else name]
        assert value.data_ptr() == source.data_ptr(), name
    assert torch.equal(sliced["down.weight"], weights["down.weight"][:RANK, :HIDDEN])
    assert torch.equal(sliced["up.weight"], weights["up.weight"][:DIM, :RANK])
    assert torch.equal(sliced["up.bias"], weights["fc2.bias"][:DIM])


def test_svd_error_is_the_discarded_spectrum():
    weight = normal(DIM, HIDDEN, dtype=torch.float64)
    spectrum = torch.linalg.svdvals(weight)
    for rank in (1, RANK, DIM):
        down, up = svd_factors(weight, rank)
        error = (weight - up @ down).square().sum()
        assert error.item() == pytest.approx(spectrum[rank:].square().sum().item(), abs=1e-12)
        assert torch.allclose(down.norm(dim=1), up.norm(dim=0))


def correlated_moment() -> torch.Tensor:
    """E[h h^T] after a GELU, of few directions, and with hidden channels that are never active."""
    hidden = functional.gelu(normal(400, 6, dtype=torch.float64) @ normal(6, HIDDEN, seed=1, dtype=torch.float64))
    hidden[:, -3:] = 0
    return hidden.T @ hidden / len(hidden)


def test_activation_aware_factors_change_the_outputs_least():
    weight, moment = normal(DIM, HIDDEN, dtype=torch.float64), correlated_moment()

    def output_error(factors):
        rest = weight - factors[1] @ factors[0]
        return torch.trace(rest @ moment @ rest.T).item()

    least = torch.linalg.eigvalsh(weight @ moment @ weight.T)
    for rank in (1, 2, RANK, 8):
        aware = output_error(activation_aware_factors(weight, rank, moment))
        assert aware == pytest.approx(least[:-rank].sum().item(), rel=1e-9)
        assert aware < 0.8 * output_error(svd_factors(weight, rank))


def test_activation_aware_factors_are_the_decomposition_of_the_whitened_matrix():
    weight = normal(DIM, HIDDEN, dtype=torch.float64)
    moment = correlated_moment() + 0.01 * torch.eye(HIDDEN, dtype=torch.float64)
    root = torch.linalg.cholesky(moment)
    left, spectrum, right = torch.linalg.svd(weight @ root, full_matrices=False)
    expected = (left[:, :RANK] * spectrum[:RANK]) @ right[:RANK] @ torch.linalg.inv(root)
    down, up = activation_aware_factors(weight, RANK, moment)
    assert torch.allclose(up @ down, expected, atol=1e-9)
    plain_down, plain_up = svd_factors(weight, RANK)
    alike = activation_aware_factors(weight, RANK, torch.eye(HIDDEN))
    assert torch.allclose(alike[1] @ alike[0], plain_up @ plain_down, atol=1e-9)


@pytest.mark.parametrize("aware", [True, False])
def test_a_prefix_of_the_factors_is_the_truncation_for_a_smaller_rank(aware):
    weight = normal(DIM, HIDDEN)
    moment = (correlated_moment().float(),) if aware else ()
    factors = activation_aware_factors if aware else svd_factors
    down, up = factors(weight, 8, *moment)
    smaller_down, smaller_up = factors(weight, RANK, *moment)
    assert down.dtype is torch.float32
    assert torch.equal(down[:RANK], smaller_down)
    assert torch.equal(up[:, :RANK], smaller_up)
