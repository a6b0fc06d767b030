import math
from itertools import product

import pytest
import torch
from factories import backbone
from small_spaces import randomise
from torch.func import functional_call

from nas.arch import tiling as chunks
from nas.arch.architecture import LayerChoice, LayerContext
from nas.model.layers.linear import LinearAttention

DIM, TOKENS, HEAD = 24, 16, 8


def built(*, heads: int = 3, tokens: int = TOKENS, on_grid: bool = True, class_token: bool = True, seed: int = 0):
    layer = LayerChoice(num_tokens=tokens, num_heads=heads, mlp_ratio=2, attention="linear")
    context = LayerContext(tokens_before=TOKENS, on_grid=on_grid)
    attention = LinearAttention(DIM, layer, context, backbone(class_token=class_token)).eval()
    randomise(attention, seed)
    return attention


def images(count: int = 3, *, class_token: bool = True, tokens: int = TOKENS, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, tokens + class_token, DIM, generator=generator)


def heads_of(attention, x):
    """Queries, keys and values, each [B, H, T, d]."""
    return attention.qkv(x).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def convolved(attention, v):
    """The convolution of METHODS C8, tap by tap."""
    local = torch.zeros_like(v)
    prefix, side = attention.prefix, attention.sides[0]
    for y, x, dy, dx in product(range(side), range(side), range(-1, 2), range(-1, 2)):
        if 0 <= y + dy < side and 0 <= x + dx < side:
            tap = attention.linear_conv.weight[:, 0, dy + 1, dx + 1]
            near = v[:, :, prefix + (y + dy) * side + x + dx]
            local[:, :, prefix + y * side + x] += tap[:, None] * near
    return local


def by_maps(attention, x):
    """The same by an explicit T x T matrix of similarities."""
    q, k, v = heads_of(attention, x)
    y = v / 2 + (unit(q) @ unit(k).transpose(2, 3) / math.pi) @ v
    out = unit(y) * attention.linear_gain[:, None, None]
    if attention.linear_conv is not None:
        out = out + convolved(attention, v)
    return attention.proj(out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("on_grid", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
def test_linear_order_equals_the_quadratic_one(heads, on_grid, class_token):
    attention = built(heads=heads, on_grid=on_grid, class_token=class_token).double()
    x = images(class_token=class_token).double()
    y, exported = attention(x, None)
    assert exported is None
    assert torch.allclose(y, by_maps(attention, x), atol=1e-10)


def test_the_lengths_of_queries_keys_and_values_have_no_effect():
    attention, x = built(on_grid=False).double(), images().double()
    y, _ = attention(x, None)
    with torch.no_grad():
        for parameter in (attention.qkv.weight, attention.qkv.bias):
            q, k, v = parameter.unflatten(0, (3, -1))
            q *= 1e-5
            k *= 1e5
            v *= 1e-2
    assert torch.allclose(attention(x, None)[0], y, atol=1e-10)


@torch.no_grad()
def test_many_images_give_what_each_gives_alone():
    attention = built().double()
    x = images(2 * chunks.images_of_tokens(TOKENS + 1, DIM, 8) + 3).double()
    some = [0, len(x) // 2, len(x) - 1]
    together = attention(x, None)[0]
    assert len(together) == len(x)
    alone = torch.cat([attention(x[i : i + 1], None)[0] for i in some])
    assert torch.allclose(together[some], alone, atol=1e-10)


def test_gradients_change_nothing_in_the_forward_pass():
    attention, x = built(), images()
    with torch.inference_mode():
        inferred = attention(x, None)[0]
    assert torch.allclose(attention.train()(x, None)[0], inferred, atol=1e-6)


def convolution_only(attention):
    """Outputs are the convolved values themselves."""
    with torch.no_grad():
        attention.linear_gain.zero_()
        attention.proj.weight.copy_(torch.eye(DIM))
        attention.proj.bias.zero_()
    return attention


def test_convolution_leaves_the_class_token_out():
    attention, x = convolution_only(built()), images()
    y, _ = attention(x, None)
    assert torch.equal(y[:, 0], torch.zeros(3, DIM))
    assert y[:, 1:].abs().min() > 0
    other = x.clone()
    other[:, 0] += 1
    assert torch.equal(attention(other, None)[0], y)


def test_convolution_does_not_wrap_at_the_ends_of_rows():
    attention, x = convolution_only(built()), images()
    with torch.no_grad():
        attention.linear_conv.weight.zero_()
        attention.linear_conv.weight[:, 0, 1, 0] = 1  # the left neighbour
        values = attention.qkv(x)[:, 1:, 2 * DIM :].unflatten(1, (4, 4))
        moved = attention(x, None)[0][:, 1:].unflatten(1, (4, 4))
    assert torch.equal(moved[:, :, 0], torch.zeros(3, 4, DIM))
    assert torch.allclose(moved[:, :, 1:], values[:, :, :-1])


@pytest.mark.parametrize(("tokens", "on_grid"), [(16, False), (12, True), (12, False)])
def test_no_convolution_off_the_grid(tokens, on_grid):
    attention = built(tokens=tokens, on_grid=on_grid)
    names = {name for name, _ in attention.named_parameters()}
    assert names == {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias", "linear_gain"}
    x = images(tokens=tokens)
    assert torch.allclose(attention(x, None)[0], by_maps(attention, x), atol=1e-5)


def test_outputs_are_as_long_as_their_gain_and_start_at_one():
    attention = LinearAttention(
        DIM,
        LayerChoice(num_tokens=TOKENS, num_heads=3, mlp_ratio=2, attention="linear"),
        LayerContext(tokens_before=TOKENS),
        backbone(),
    )
    with torch.no_grad():
        attention.proj.weight.copy_(torch.eye(DIM))
        attention.proj.bias.zero_()
    x = images()

    def lengths():
        return attention(x, None)[0].unflatten(2, (3, HEAD)).norm(dim=-1)

    assert torch.allclose(lengths(), torch.ones(3, TOKENS + 1, 3), atol=1e-5)
    gain = torch.tensor([0.5, 2.0, 3.0])
    with torch.no_grad():
        attention.linear_gain.copy_(gain)
    assert torch.allclose(lengths(), gain.expand(3, TOKENS + 1, 3), atol=1e-5)


def test_tokens_without_direction_give_zeros():
    attention = built(on_grid=False)
    with torch.no_grad():
        attention.qkv.bias.zero_()
        attention.proj.bias.zero_()
    x = torch.zeros(2, TOKENS + 1, DIM, requires_grad=True)
    y, _ = attention(x, None)
    assert torch.equal(y, torch.zeros_like(y))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_gradients_reach_every_parameter():
    attention = built().train()
    y, _ = attention(images(), None)
    y.square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
        assert parameter.grad.isfinite().all(), name


def test_gradients_are_those_of_the_quadratic_order():
    attention, x = built().double(), images().double().requires_grad_()
    ours = torch.autograd.grad(attention(x, None)[0].square().sum(), [x, *attention.parameters()])
    theirs = torch.autograd.grad(by_maps(attention, x).square().sum(), [x, *attention.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-8, atol=1e-8) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("training", [False, True])
def test_bf16_autocast_stays_close(training):
    attention, x = built().train(training), images()
    exact = attention(x, None)[0]
    with torch.autocast("cpu", torch.bfloat16):
        cast = attention(x, None)[0]
    assert cast.dtype is torch.bfloat16
    assert (cast - exact).norm() < 0.03 * exact.norm()


def test_a_skeleton_without_weights_runs_on_slices_of_a_wider_layer():
    wide, narrow = built(heads=3), built(heads=2, seed=5)
    stored = dict(wide.named_parameters())
    sliced = narrow.slice_from(stored)
    assert set(sliced) == {name for name, _ in narrow.named_parameters()}
    narrow.load_state_dict(sliced)
    q, k, v = wide.qkv.weight.unflatten(0, (3, -1))
    assert torch.equal(narrow.qkv.weight, torch.cat([q[:16], k[:16], v[:16]]))
    skeleton = built(heads=2).to("meta")
    x = images()
    with torch.no_grad():
        assert torch.equal(functional_call(skeleton, sliced, (x, None))[0], narrow(x, None)[0])
