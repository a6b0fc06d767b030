import copy
import io

import pytest
import torch
from factories import backbone
from small_spaces import randomise
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from nas.arch.architecture import LayerChoice, LayerContext
from nas.model.layers.dynamic import DynamicAttention
from nas.model.layers.maps import Guidance
from nas.model.layers.static import StaticAttention, log_mean_map

DIM, TOKENS, HEAD = 24, 16, 8
T = TOKENS + 1


def built(*, heads: int = 3, guided: bool = False, class_token: bool = True, seed: int = 0):
    layer = LayerChoice(num_tokens=TOKENS, num_heads=heads, mlp_ratio=2, attention="static")
    attention = StaticAttention(
        DIM, layer, LayerContext(tokens_before=TOKENS), backbone(class_token=class_token), guided=guided
    ).eval()
    randomise(attention, seed)
    return attention


def images(count: int = 3, *, class_token: bool = True, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, TOKENS + class_token, DIM, generator=generator)


def some_maps(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def by_images(attention, x):
    """The same image by image, with gradients, so that nothing is cached."""
    v = attention.v(x).unflatten(2, (-1, HEAD)).transpose(1, 2)
    mixed = attention.static_map.softmax(dim=-1) @ v
    return attention.proj(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("count", [1, 3])
def test_one_product_for_all_images_equals_one_for_each(count, heads, class_token):
    attention = built(heads=heads, class_token=class_token).double()
    x = images(count, class_token=class_token).double()
    y, exported = attention(x, None)
    assert exported is None
    assert torch.allclose(y, by_images(attention, x), atol=1e-12)
    with torch.inference_mode():
        assert torch.equal(attention(x, None)[0], y)


def test_gradients_reach_every_parameter():
    attention = built().train()
    attention(images(), None)[0].square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


class Softmaxes(TorchDispatchMode):
    """Counts softmaxes that really run."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "softmax" in func.name()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_maps_are_made_once_while_the_parameter_stays(mode):
    attention, x = built(), images()
    with mode(), Softmaxes() as softmaxes:
        first = attention(x, None)[0]
        again = attention(x, None)[0]
    assert softmaxes.count == 1
    assert torch.equal(first, again)


def in_place(attention):
    with torch.no_grad():
        attention.static_map.mul_(-1)


def in_place_in_inference_mode(attention):
    with torch.inference_mode():
        attention.static_map[0].neg_()


def optimiser_step(attention):
    attention.static_map.grad = torch.ones_like(attention.static_map).tril()
    torch.optim.SGD([attention.static_map], lr=1.0).step()


def optimiser_step_on_data(attention):
    attention.train()
    attention.static_map.data.mul_(-1)
    attention.eval()


def loaded(attention):
    attention.load_state_dict(built(seed=7).state_dict())


def assigned(attention):
    attention.load_state_dict(built(seed=7).state_dict(), assign=True)


def replaced_parameter(attention):
    attention.static_map = nn.Parameter(-attention.static_map.detach())


def replaced_data(attention):
    attention.static_map.data = -attention.static_map.data


def wider_and_changed(attention):
    attention.double()
    in_place(attention)


def through_bf16(attention):
    attention.bfloat16()
    attention.float()


CHANGES = [
    in_place,
    in_place_in_inference_mode,
    optimiser_step,
    optimiser_step_on_data,
    loaded,
    assigned,
    replaced_parameter,
    replaced_data,
    wider_and_changed,
    through_bf16,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_cached_maps_follow_every_change_of_the_parameter(change, mode):
    attention, x = built(), images()
    with mode():
        before = attention(x, None)[0]
    for rounds in range(3):  # an old parameter's memory may be given to the new one
        change(attention)
        x = x.to(attention.static_map.dtype)
        with mode():
            after = attention(x, None)[0]
        assert torch.equal(after, attention(x, None)[0])  # with gradients nothing is cached
        assert rounds or not torch.equal(after, before.to(after.dtype))


def test_maps_are_made_for_the_precision_at_hand():
    attention, x = built(), images()
    with torch.inference_mode():
        exact = attention(x, None)[0]
        with torch.autocast("cpu", torch.bfloat16):
            cast = attention(x, None)[0]
        assert torch.equal(attention(x, None)[0], exact)
        whole = copy.deepcopy(attention).bfloat16()(x.bfloat16(), None)[0]
    assert cast.dtype is whole.dtype is torch.bfloat16
    assert (cast - exact).norm() < 0.02 * exact.norm()
    assert (whole - exact).norm() < 0.02 * exact.norm()


def test_training_follows_even_changes_that_are_not_counted():
    attention, x = built().train(), images()
    for _ in range(2):
        with torch.no_grad():
            given = attention(x, None)[0]
        assert torch.equal(given, attention(x, None)[0])
        attention.static_map.data.mul_(-1)


def test_a_copy_has_no_part_in_the_cache():
    attention, x = built(), images()
    fresh, used = io.BytesIO(), io.BytesIO()
    torch.save(attention, fresh)
    with torch.no_grad():
        attention(x, None)
    torch.save(attention, used)
    assert len(used.getvalue()) == len(fresh.getvalue())
    other = copy.deepcopy(attention)
    in_place(other)
    with torch.no_grad():
        results = [module(x, None)[0] for module in (attention, other)]
    assert torch.equal(results[0], attention(x, None)[0])
    assert torch.equal(results[1], other(x, None)[0])
    assert not torch.equal(*results)


def test_a_skeleton_follows_the_store_and_keeps_nothing():
    wide, skeleton, x = built(heads=3), built(heads=2).to("meta"), images()
    stored = {skeleton.stored_name(name): p for name, p in wide.named_parameters() if "v." not in name}
    projection = nn.Linear(DIM, 3 * DIM)
    stored |= {"qkv.weight": projection.weight, "qkv.bias": projection.bias}
    alone = built(heads=2)
    results = []
    for _ in range(2):
        sliced = skeleton.slice_from(stored)
        assert {name: p.shape for name, p in sliced.items()} == {
            name: p.shape for name, p in skeleton.named_parameters()
        }
        alone.load_state_dict(sliced)
        with torch.inference_mode(), Softmaxes() as softmaxes:
            results += [functional_call(skeleton, sliced, (x, None))[0] for _ in range(2)]
        assert softmaxes.count == 2
        assert torch.equal(results[-1], alone(x, None)[0])
        in_place(wide)
    assert not torch.equal(results[0], results[-1])


def test_guided_weights_are_slices_of_the_whole_projection():
    wide, guided = nn.Linear(DIM, 3 * DIM), built(heads=2, guided=True)
    stored = {"qkv.weight": wide.weight, "qkv.bias": wide.bias}
    stored |= {"proj.weight": torch.ones(DIM, DIM), "proj.bias": torch.ones(DIM)}
    stored |= {guided.stored_name("static_map"): torch.ones(3, T, T)}
    sliced = guided.slice_from(stored)
    assert {n: p.shape for n, p in sliced.items()} == {n: p.shape for n, p in guided.named_parameters()}
    assert torch.equal(sliced["qkv.bias"], torch.cat([wide.bias[24 * i : 24 * i + 16] for i in range(3)]))


def guided_and_plain():
    guided, plain = built(guided=True), built(seed=3)
    weights = guided.state_dict()
    for name in ("weight", "bias"):
        weights[f"v.{name}"] = weights.pop(f"qkv.{name}")[2 * DIM :]
    plain.load_state_dict(weights)
    return guided.train(), plain.train()


@pytest.mark.parametrize("guidance", [None, Guidance(static=0.0)])
def test_without_its_share_the_guided_layer_is_the_plain_one(guidance):
    guided, plain = guided_and_plain()
    x = images()
    assert torch.equal(guided(x, None, guidance)[0], plain(x, None)[0])


def test_a_layer_without_queries_ignores_guidance():
    _, plain = guided_and_plain()
    guidance, x = Guidance(static=1.0), images()
    assert torch.equal(plain(x, None, guidance)[0], plain(x, None)[0])


def parts_of(guided, x):
    """Dynamic maps, static maps and values of a guided layer."""
    q, k, v = guided.qkv(x).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
    return (q @ k.transpose(2, 3) / HEAD**0.5).softmax(-1), guided.static_map.softmax(-1), v


def test_before_its_maps_are_set_a_guided_layer_is_the_dynamic_one():
    guided, guidance, x = built(guided=True).train(), Guidance(static=1.0), images()
    layer = LayerChoice(num_tokens=TOKENS, num_heads=3, mlp_ratio=2)
    dynamic = DynamicAttention(DIM, layer, LayerContext(tokens_before=TOKENS), backbone()).train()
    dynamic.load_state_dict({name: value for name, value in guided.state_dict().items() if name != "static_map"})
    y = guided(x, None, guidance)[0]
    assert torch.equal(y, dynamic(x, None)[0])
    y.sum().backward()
    assert guided.static_map.grad is None


@pytest.mark.parametrize("share", [0.25, 0.99])
def test_guided_maps_are_the_mixture(share):
    guided = built(guided=True).double().train()
    x, guidance = images().double(), Guidance(static=share)
    y, exported = guided(x, None, guidance)
    dynamic, static, v = parts_of(guided, x)
    expected = guided.proj(((share * dynamic + (1 - share) * static) @ v).transpose(1, 2).flatten(2))
    assert exported is None
    assert torch.allclose(y, expected, atol=1e-10)


def test_guidance_works_under_autocast():
    guided, _ = guided_and_plain()
    y = guided(images(), None, Guidance(static=0.5))[0]
    with torch.autocast("cpu", torch.bfloat16):
        z = guided(images(), None, Guidance(static=0.5))[0]
    assert z.dtype is torch.bfloat16
    assert (z - y).norm() < 0.02 * y.norm()
    z.float().square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in guided.parameters())


def test_log_of_the_mean_map_reproduces_it():
    mean = some_maps(5, 3, T, T).mean(dim=0)
    reproduced = log_mean_map(mean).softmax(dim=-1)
    assert torch.allclose(reproduced, mean, atol=1e-4)
    assert torch.allclose(reproduced.sum(dim=-1), torch.ones(3, T, dtype=torch.double))
    certain = torch.eye(T)[None]
    assert torch.allclose(log_mean_map(certain).softmax(dim=-1), certain, atol=1e-4)
