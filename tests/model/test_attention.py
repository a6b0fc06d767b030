from dataclasses import replace
from itertools import product

import pytest
import torch
from factories import backbone
from small_spaces import randomise

from nas.architecture import AttentionKind, Hallucination, LayerChoice
from nas.model.attention import DynamicAttention, SharedAttention, StaticAttention, build_attention

DIM, TOKENS = 24, 16
FIXED = backbone()  # heads of 8 channels, a class token
T = TOKENS + FIXED.num_prefix_tokens


def layer(**changes) -> LayerChoice:
    return LayerChoice(**{"num_tokens": TOKENS, "num_heads": 3, "mlp_ratio": 2, **changes})


def hallucinating(heads: int, hallucinated: int, variant: str) -> LayerChoice:
    return layer(num_heads=heads, hallucination_ratio=hallucinated / heads, hallucination=variant)


def built(choice: LayerChoice, *, exports_map: bool = False, seed: int = 0, fixed=FIXED):
    attention = build_attention(DIM, choice, fixed, exports_map=exports_map).eval()
    randomise(attention, seed)
    return attention


def tokens(seed: int = 1) -> torch.Tensor:
    return torch.randn(3, T, DIM, generator=torch.Generator().manual_seed(seed))


def maps_of(seed: int = 2, heads: int = 3) -> torch.Tensor:
    return torch.randn(3, heads, T, T, generator=torch.Generator().manual_seed(seed)).softmax(dim=-1)


KINDS = {
    "plain": layer(),
    "copy": hallucinating(3, 1, "copy"),
    "mix_conv": hallucinating(3, 1, "mix_conv"),
    "mostly copied": hallucinating(3, 2, "copy"),
    "mostly mixed": hallucinating(3, 2, "mix_conv"),
    "static": layer(attention="static"),
    "shared": layer(attention="shared"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exports_map", [False, True])
def test_rows_of_every_map_sum_to_one(kind, exports_map):
    # Seen from outside: constant values come out as they are, whatever the maps.
    attention = built(KINDS[kind], exports_map=exports_map)
    with torch.no_grad():
        values = attention.qkv if isinstance(attention, DynamicAttention) else attention.v
        values.weight[-DIM:] = 0
        values.bias[-DIM:] = torch.arange(DIM)
        attention.proj.weight.copy_(torch.eye(DIM))
        attention.proj.bias.zero_()
        x, maps = attention(tokens(), maps_of())
    assert torch.allclose(x, torch.arange(DIM).expand(3, T, DIM).float(), atol=1e-4)
    if maps is not None:
        assert maps.shape == (3, 3, T, T)
        assert torch.allclose(maps.sum(dim=-1), torch.ones(3, 3, T), atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "copy", "mostly copied", "mix_conv"])
def test_fused_path_equals_explicit_path(kind):
    fused, explicit = (built(KINDS[kind], exports_map=exports) for exports in (False, True))
    x, no_maps = fused(tokens(), None)
    y, maps = explicit(tokens(), None)
    assert no_maps is None
    assert maps is not None
    assert torch.allclose(x, y, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_path_equals_evaluation_path(dtype):
    attention = built(layer()).to(dtype)
    tolerance = 1e-5 if dtype is torch.float32 else 0.1
    evaluated = attention.eval()(tokens().to(dtype), None)[0]
    trained = attention.train()(tokens().to(dtype), None)[0]
    assert torch.allclose(trained, evaluated, atol=tolerance)


@pytest.mark.parametrize(("heads", "hallucinated"), [(2, 1), (3, 1), (4, 2), (3, 2), (4, 3), (5, 3)])
@pytest.mark.parametrize(("variant", "exports_map"), list(product(Hallucination, [False, True])))
def test_hallucinated_heads_that_change_nothing_are_copies_of_their_parents(
    heads, hallucinated, variant, exports_map
):
    real, d = heads - hallucinated, FIXED.head_dim
    some = built(hallucinating(heads, hallucinated, variant), exports_map=exports_map)
    full = built(layer(num_heads=heads), exports_map=exports_map)
    parents = [*range(real), *(j % real for j in range(hallucinated))]
    rows = [p * d + c for p in parents for c in range(d)]
    with torch.no_grad():
        for name, initial in (("gain", 1.0), ("mix", 0.0)):
            if hasattr(some, name):
                getattr(some, name).fill_(initial)
        if hasattr(some, "conv"):
            some.conv.weight.zero_()
        for ours, theirs in ((some.qkv.weight, full.qkv.weight), (some.qkv.bias, full.qkv.bias)):
            q, k, v = ours.split([real * d, real * d, heads * d])
            theirs.copy_(torch.cat([q[rows], k[rows], v]))
        full.proj.load_state_dict(some.proj.state_dict())
    assert torch.allclose(some(tokens(), None)[0], full(tokens(), None)[0], atol=1e-5)


@pytest.mark.parametrize(("hallucinated", "class_token"), [(1, True), (2, True), (1, False)])
@pytest.mark.parametrize("variant", list(Hallucination))
def test_hallucinated_logits_follow_the_formula(variant, hallucinated, class_token):
    fixed = backbone(class_token=class_token)
    prefix, d, real = fixed.num_prefix_tokens, fixed.head_dim, 3 - hallucinated
    attention = built(hallucinating(3, hallucinated, variant), exports_map=True, fixed=fixed)
    x = tokens()[:, : TOKENS + prefix]
    _, maps = attention(x, None)
    q, k, _ = attention.qkv(x).split([real * d, real * d, 3 * d], dim=2)
    for head in range(3):
        parent = head if head < real else (head - real) % real
        scores = [
            q[..., g * d : (g + 1) * d] @ k[..., g * d : (g + 1) * d].transpose(1, 2) / d**0.5
            for g in range(real)
        ]
        logits = scores[parent].clone()
        if head >= real:
            j = head - real
            if variant is Hallucination.COPY:
                logits = logits * attention.gain[j]
            else:
                logits = logits + sum(attention.mix[j, g] * scores[g] for g in range(real))
                patches = torch.nn.functional.pad(scores[parent][:, prefix:, prefix:], (1, 1, 1, 1))
                for dy, dx in product(range(3), range(3)):
                    window = patches[:, dy : dy + TOKENS, dx : dx + TOKENS]
                    logits[:, prefix:, prefix:] += attention.conv.weight[j, 0, dy, dx] * window
        assert torch.allclose(maps[:, head], logits.softmax(dim=-1), atol=1e-5), head


def test_shared_layer_equals_attention_with_the_providers_queries_and_keys():
    provider, consumer = built(layer(), exports_map=True), built(layer(attention="shared"), seed=5)
    _, maps = provider(tokens(), None)
    full = built(layer())
    with torch.no_grad():
        full.qkv.weight.copy_(torch.cat([provider.qkv.weight[: 2 * DIM], consumer.v.weight]))
        full.qkv.bias.copy_(torch.cat([provider.qkv.bias[: 2 * DIM], consumer.v.bias]))
        full.proj.load_state_dict(consumer.proj.state_dict())
    assert torch.allclose(consumer(tokens(), maps)[0], full(tokens(), None)[0], atol=1e-5)


def test_shared_layer_passes_on_the_very_same_maps():
    maps = maps_of()
    _, passed_on = built(layer(attention="shared"))(tokens(), maps)
    assert passed_on.untyped_storage().data_ptr() == maps.untyped_storage().data_ptr()


def test_shared_layer_without_maps_is_an_error():
    with pytest.raises(ValueError, match="needs the maps of its provider"):
        built(layer(attention="shared"))(tokens(), None)


def test_static_map_of_log_means_reproduces_the_mean_map():
    _, maps = built(layer(), exports_map=True)(tokens(), None)
    mean = maps.mean(dim=0)
    static = built(layer(attention="static"))
    with torch.no_grad():
        static.static_map.copy_((mean + 1e-6).log())
    reproduced = static.static_map.softmax(dim=-1)
    assert torch.allclose(reproduced, mean, atol=1e-4)
    assert torch.allclose(reproduced.sum(dim=-1), torch.ones(3, T), atol=1e-5)
    expected = built(layer(attention="shared"))
    expected.load_state_dict({k: v for k, v in static.state_dict().items() if k != "static_map"})
    given = mean.expand(3, -1, -1, -1)
    assert torch.allclose(static(tokens(), None)[0], expected(tokens(), given)[0], atol=1e-4)


def test_static_maps_are_the_same_for_every_image():
    static = built(layer(attention="static"))
    x = tokens()
    alone = torch.cat([static(image[None], None)[0] for image in x])
    assert torch.allclose(static(x, None)[0], alone, atol=1e-6)
    moved = static(x + 1.0, None)[0] - static(x, None)[0]
    again = static(x + 2.0, None)[0] - static(x + 1.0, None)[0]
    assert torch.allclose(moved, again, atol=1e-4)  # linear in the tokens


@pytest.mark.parametrize("kind", ["static", "shared"])
def test_layers_without_queries_own_none(kind):
    names = {name for name, _ in built(KINDS[kind]).named_parameters()}
    assert names - {"static_map"} == {"v.weight", "v.bias", "proj.weight", "proj.bias"}


def test_each_kind_has_its_module():
    kinds = {
        AttentionKind.DYNAMIC: DynamicAttention,
        AttentionKind.STATIC: StaticAttention,
        AttentionKind.SHARED: SharedAttention,
    }
    for kind, module in kinds.items():
        assert type(built(replace(layer(), attention=kind))) is module
