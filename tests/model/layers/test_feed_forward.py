import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.layers import Mlp
from torch.nn import functional

from nas.arch.architecture import LayerChoice
from nas.base.errors import DataError
from nas.model.layers.feed_forward import (
    INITIAL,
    BranchedLinear,
    CompactMlp,
    activation_aware_factors,
    add_branches,
    build_feed_forward,
    calibrate_branches,
    fuse_branches,
    svd_factors,
)

DIM, HIDDEN, RANK = 12, 24, 4


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def built(seed: int = 0) -> CompactMlp:
    mlp = CompactMlp(DIM, HIDDEN, RANK).eval()
    with torch.no_grad():
        for i, parameter in enumerate(mlp.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=10 * seed + i) / 3)
    return mlp


def stored(branches: int) -> dict[str, torch.Tensor]:
    """Of a supernet with twice the channels, hidden channels and rank."""
    shapes = {"fc1.weight": (48, 24), "fc1.bias": (48,), "fc2.weight": (24, 48), "fc2.bias": (24,)}
    for b in range(branches):
        suffix = f"_{b}" if b else ""
        shapes |= {f"down.weight{suffix}": (8, 48), f"up.weight{suffix}": (24, 8)}
    return {name: normal(*shape, seed=i).requires_grad_() for i, (name, shape) in enumerate(shapes.items())}


def layer(**changes) -> LayerChoice:
    return LayerChoice(**{"num_tokens": 16, "num_heads": 3, "mlp_ratio": 2, **changes})


def test_rank_decides_the_feed_forward():
    full, compact = (build_feed_forward(DIM, layer(ffn_rank=rank)) for rank in (1, 0.25))
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
    product = INITIAL["up.weight"](stored_up) @ INITIAL["down.weight"](stored_down)
    for weight in (product, mlp.up.weight @ mlp.down.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_slices_of_one_branch_are_views_and_the_bias_is_the_full_ones():
    weights = stored(branches=1)
    sliced = CompactMlp(DIM, HIDDEN, RANK).slice_from(weights)
    assert set(sliced) == {"fc1.weight", "fc1.bias", "down.weight", "up.weight", "up.bias"}
    for name, value in sliced.items():
        source = weights["fc2.bias" if name == "up.bias" else name]
        assert value.data_ptr() == source.data_ptr(), name
    assert torch.equal(sliced["down.weight"], weights["down.weight"][:RANK, :HIDDEN])
    assert torch.equal(sliced["up.weight"], weights["up.weight"][:DIM, :RANK])
    assert torch.equal(sliced["up.bias"], weights["fc2.bias"][:DIM])


def test_stored_branches_are_parallel_layers_without_normalisation():
    weights, x = stored(branches=3), normal(2, 5, DIM, seed=1)
    with torch.device("meta"):
        skeleton = CompactMlp(DIM, HIDDEN, RANK)
    y = torch.func.functional_call(skeleton, skeleton.slice_from(weights), (x,))
    suffixes = ("", "_1", "_2")
    hidden = functional.gelu(functional.linear(x, weights["fc1.weight"][:24, :12], weights["fc1.bias"][:24]))
    narrow = sum(functional.linear(hidden, weights[f"down.weight{s}"][:4, :24]) for s in suffixes)
    wide = sum(functional.linear(narrow, weights[f"up.weight{s}"][:12, :4]) for s in suffixes)
    assert torch.allclose(y, wide + weights["fc2.bias"][:12], atol=1e-4)


def test_stored_branches_train_like_one_with_a_greater_learning_rate():
    x, target = normal(2, 5, DIM, seed=1), normal(2, 5, DIM, seed=2)
    skeleton, trained = CompactMlp(DIM, HIDDEN, RANK), []
    for branches in (1, 2):
        weights = {name: 0.1 * value.detach() for name, value in stored(branches=1).items()}
        for name in INITIAL:
            weights |= {f"{name}_1": torch.zeros_like(weights[name])} if branches == 2 else {}
        factors = [
            value.requires_grad_() for name, value in weights.items() if name.startswith(("down", "up"))
        ]
        optimizer = torch.optim.AdamW(factors, lr=2e-3 / branches, weight_decay=0.1 * branches)
        for _ in range(4):
            optimizer.zero_grad()
            y = torch.func.functional_call(skeleton, skeleton.slice_from(weights), (x,))
            functional.mse_loss(y, target).backward()
            optimizer.step()
        trained.append(skeleton.slice_from(weights))
    start = 0.1 * stored(branches=1)["up.weight"][:DIM, :RANK]
    for name in INITIAL:
        assert torch.allclose(trained[0][name], trained[1][name], atol=1e-5)
    assert not torch.allclose(trained[0]["up.weight"], start, atol=1e-3)


def test_branches_are_normalised_one_by_one_over_images_and_tokens():
    branched = BranchedLinear(5, 3, 2, batch_norm=True, bias=True).train()
    x, bias = normal(4, 7, 5), normal(3)
    scales, shifts = normal(2, 3, seed=1), normal(2, 3, seed=2)
    with torch.no_grad():
        branched.norm.weight.copy_(scales.flatten())
        branched.norm.bias.copy_(shifts.flatten())
        branched.bias.copy_(bias)
    expected = bias.clone()
    for weight, scale, shift in zip(branched.linear.weight.split(3), scales, shifts, strict=True):
        z = x @ weight.T
        mean, variance = z.mean(dim=(0, 1)), z.var(dim=(0, 1), correction=0)
        expected = expected + scale * (z - mean) / (variance + 1e-5).sqrt() + shift
    assert torch.allclose(branched(x), expected, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_fused_branches_are_one_linear_layer(bias, batch_norm):
    torch.manual_seed(0)
    branched = BranchedLinear(8, 6, 3, batch_norm=batch_norm, bias=bias)
    with torch.no_grad():
        for parameter in branched.parameters():
            parameter.normal_()
        for seed in range(3):  # moves the running statistics
            branched(3 * normal(4, 7, 8, seed=seed) + 1)
    fused, x = branched.eval().fuse(), normal(4, 7, 8, seed=9)
    assert type(fused) is torch.nn.Linear
    assert (fused.bias is None) == (not bias and not batch_norm)
    assert torch.allclose(fused(x), branched(x), atol=1e-5)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_adding_branches_keeps_the_function_and_fusing_keeps_it_after_training(batch_norm):
    torch.manual_seed(0)
    model = torch.nn.Sequential(built(0), built(1))
    x, target = normal(3, 9, DIM, seed=1), normal(3, 9, DIM, seed=2)
    before = model(x)
    add_branches(model, 2, batch_norm=batch_norm)
    assert torch.allclose(model(x), before, atol=1e-5)
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.02)
    for _ in range(5):
        optimizer.zero_grad()
        functional.mse_loss(model(x), target).backward()
        optimizer.step()
    model.eval()
    trained = model(x)
    assert not torch.allclose(trained, before, atol=0.1)
    fuse_branches(model)
    assert set(model.state_dict()) == set(torch.nn.Sequential(built(), built()).state_dict())
    assert torch.allclose(model(x), trained, atol=1e-5)


def test_normalised_branches_start_as_the_identity_in_training():
    model = torch.nn.Sequential(built(0), built(1)).eval()
    batches = [normal(4, 9, DIM, seed=seed) for seed in (1, 2)]
    images = torch.cat(batches)
    before = model(images)
    add_branches(model)
    uncalibrated = copy.deepcopy(model).train()(images)
    calibrate_branches(model, batches)
    first = model[0].down.norm
    assert not model.training
    assert not first._forward_pre_hooks
    assert torch.allclose(model(images), before, atol=1e-5)
    assert torch.allclose(model.train()(images), before, atol=1e-4)
    assert not torch.allclose(uncalibrated, before, atol=0.1)
    assert torch.allclose(first.weight[:RANK], (first.running_var + first.eps).sqrt()[:RANK], atol=0.02)
    assert not first.weight[RANK:].any()


def test_every_new_branch_learns():
    torch.manual_seed(0)
    for batch_norm in (True, False):
        mlp = built()
        add_branches(mlp, 2, batch_norm=batch_norm)
        mlp.train()(normal(2, 9, DIM)).square().sum().backward()
        for part in (mlp.down, mlp.up):
            grown = part.norm.weight if batch_norm else part.linear.weight
            assert grown.grad[len(grown) // 2 :].abs().max() > 1e-3


def test_calibration_needs_images():
    mlp = built().train()
    add_branches(mlp)
    with pytest.raises(DataError, match="got none"):
        calibrate_branches(mlp, [])
    assert mlp.training


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
    hidden = functional.gelu(
        normal(400, 6, dtype=torch.float64) @ normal(6, HIDDEN, seed=1, dtype=torch.float64)
    )
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
