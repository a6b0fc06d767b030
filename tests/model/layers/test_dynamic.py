"""Dynamic attention, and what it has in common with shared attention."""

import sys
from dataclasses import replace
from itertools import product

import pytest
import torch
from attention_layers import (
    DIM,
    FIXED,
    HEADS,
    KINDS,
    SHARED,
    TOKENS,
    T,
    built,
    change_nothing,
    hallucinating,
    layer,
    provided_by,
    tokens,
)
from factories import backbone
from flops import flop_counter

from nas.arch.architecture import LayerContext
from nas.arch.operators import HALLUCINATION
from nas.model.block import build_operator
from nas.model.layers.dynamic import DynamicAttention
from nas.model.layers.hallucination import images_at_once
from nas.model.layers.linear import LinearAttention
from nas.model.layers.maps import Guidance, Provided
from nas.model.layers.shared import SharedAttention
from nas.model.layers.static import StaticAttention

MIXES = ("mix", "mix_conv")


@pytest.mark.parametrize("kind", KINDS | SHARED)
@pytest.mark.parametrize(("maps", "logits"), list(product([False, True], repeat=2)))
def test_rows_of_every_map_sum_to_one(kind, maps, logits):
    # Seen from outside: constant values come out as they are, whatever the maps.
    choice = (KINDS | SHARED)[kind]
    attention = built(choice, maps=maps, logits=logits)
    given = provided_by(real=choice.num_real) if kind in SHARED else None
    with torch.no_grad():
        values = attention.v if kind in SHARED else attention.qkv
        values.weight[-DIM:] = 0
        values.bias[-DIM:] = torch.arange(DIM)
        attention.proj.weight.copy_(torch.eye(DIM))
        attention.proj.bias.zero_()
        x, exported = attention(tokens(), given)
    assert torch.allclose(x, torch.arange(DIM).expand(3, T, DIM).float(), atol=1e-4)
    if kind not in SHARED and maps:
        assert exported.maps.shape == (3, 3, T, T)
        assert torch.allclose(exported.maps.sum(dim=-1), torch.ones(3, 3, T), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_changes_nothing_else(kind):
    x, nothing = built(KINDS[kind])(tokens(), None)
    assert nothing is None
    for maps, logits in ((True, False), (False, True), (True, True)):
        y, exported = built(KINDS[kind], maps=maps, logits=logits)(tokens(), None)
        assert torch.allclose(x, y, atol=1e-5)
        assert (exported.maps is not None, exported.logits is not None) == (maps, logits)


@pytest.mark.parametrize("kind", KINDS)
def test_exported_maps_are_the_softmax_of_the_exported_logits(kind):
    attention = built(KINDS[kind], maps=True, logits=True)
    _, exported = attention(tokens(), None)
    assert exported.logits.shape == (3, KINDS[kind].num_real, T, T)
    every = exported.logits if attention.hallucinate is None else attention.hallucinate(exported.logits)
    assert torch.allclose(exported.maps, every.softmax(dim=-1), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_exports_can_be_switched_on_later(kind):
    switched = built(KINDS[kind])
    switched.exports_maps = switched.exports_logits = True
    ours, theirs = (m(tokens(), None)[1] for m in (switched, built(KINDS[kind], maps=True, logits=True)))
    assert torch.equal(ours.maps, theirs.maps)
    assert torch.equal(ours.logits, theirs.logits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_path_equals_evaluation_path(dtype, kind):
    attention, x = built(KINDS[kind]).to(dtype), tokens().to(dtype)
    tolerance = 1e-5 if dtype is torch.float32 else 0.1
    trained = attention.train()(x, None)[0]
    for recorded in (True, False):
        with torch.set_grad_enabled(recorded):
            assert torch.allclose(trained, attention.eval()(x, None)[0], atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_inference_is_near_fp32(kind):
    choice = replace(KINDS[kind], num_tokens=100)
    attention, x = built(choice), tokens(count=101)
    with torch.no_grad():
        expected = attention(x, None)[0]
        with torch.autocast("cpu", torch.bfloat16):
            autocast = attention(x, None)[0]
        converted = attention.to(torch.bfloat16)(x.bfloat16(), None)[0]
    for ours in (autocast, converted):
        assert ours.dtype is torch.bfloat16
        assert (ours - expected).abs().mean() < 0.02


@pytest.mark.parametrize(("heads", "hallucinated"), HEADS)
@pytest.mark.parametrize(("variant", "maps"), list(product(HALLUCINATION, [False, True])))
def test_hallucinated_heads_that_change_nothing_are_copies_of_their_parents(heads, hallucinated, variant, maps):
    real, d = heads - hallucinated, FIXED.head_dim
    some = built(hallucinating(heads, hallucinated, variant), maps=maps)
    full = built(layer(num_heads=heads), maps=maps)
    parents = [*range(real), *(j % real for j in range(hallucinated))]
    rows = [p * d + c for p in parents for c in range(d)]
    change_nothing(some.hallucinate)
    with torch.no_grad():
        for ours, theirs in ((some.qkv.weight, full.qkv.weight), (some.qkv.bias, full.qkv.bias)):
            q, k, v = ours.split([real * d, real * d, heads * d])
            theirs.copy_(torch.cat([q[rows], k[rows], v]))
        full.proj.load_state_dict(some.proj.state_dict())
    assert torch.allclose(some(tokens(), None)[0], full(tokens(), None)[0], atol=1e-5)


@pytest.mark.parametrize(("hallucinated", "class_token"), [(1, True), (2, True), (1, False)])
@pytest.mark.parametrize("variant", list(HALLUCINATION))
def test_real_logits_are_scaled_products_and_the_others_are_hallucinated(variant, hallucinated, class_token):
    fixed = backbone(class_token=class_token)
    d, real = fixed.head_dim, 3 - hallucinated
    attention = built(hallucinating(3, hallucinated, variant), maps=True, logits=True, fixed=fixed)
    x = tokens()[:, : TOKENS + fixed.num_prefix_tokens]
    _, exported = attention(x, None)
    q, k, _ = attention.qkv(x).split([real * d, real * d, 3 * d], dim=2)
    for head in range(real):
        own = slice(head * d, (head + 1) * d)
        scores = q[..., own] @ k[..., own].transpose(1, 2) / d**0.5
        assert torch.allclose(exported.logits[:, head], scores, atol=1e-5)
    assert attention.hallucinate.prefix == fixed.num_prefix_tokens
    expected = attention.hallucinate(exported.logits).softmax(dim=-1)
    assert torch.allclose(exported.maps, expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS | SHARED)
def test_slices_are_the_first_heads_of_what_is_stored(kind):
    choice = (KINDS | SHARED)[kind]
    attention, most = built(choice), DIM + 2 * FIXED.head_dim
    stored = {
        "qkv.weight": torch.randn(3 * most, most),
        "qkv.bias": torch.randn(3 * most),
        "proj.weight": torch.randn(most, most),
        "proj.bias": torch.randn(most),
        **{f"hallucinate_{real}.gain": torch.randn(4) for real in (1, 2)},
        **{f"hallucinate_{real}.mix": torch.randn(4, real) for real in (1, 2)},
        **{f"hallucinate_{real}.conv.weight": torch.randn(4, 1, 3, 3) for real in (1, 2)},
    }
    sliced = attention.slice_from(stored)
    assert {n: v.shape for n, v in sliced.items()} == {n: p.shape for n, p in attention.named_parameters()}
    real = choice.num_real * FIXED.head_dim
    q, k, v = stored["qkv.weight"].view(3, most, most)[:, :, :DIM]
    if kind in SHARED:
        assert torch.equal(sliced["v.weight"], v[:DIM])
    else:
        assert torch.equal(sliced["qkv.weight"], torch.cat([q[:real], k[:real], v[:DIM]]))
    for name in (name for name in sliced if name.startswith("hallucinate.")):
        kept = stored[name.replace("hallucinate", f"hallucinate_{choice.num_real}")]
        assert torch.equal(sliced[name], kept[tuple(map(slice, sliced[name].shape))])


def home_of(attention):
    return sys.modules[type(attention).__module__]


def in_chunks_and_at_once(attention, x, given, monkeypatch):
    with torch.no_grad():
        chunked = attention(x, given)
        with monkeypatch.context() as patched:
            patched.setattr(home_of(attention), "images_at_once", lambda v, *_: len(v))
            return chunked, attention(x, given)


@pytest.mark.parametrize("kind", KINDS | SHARED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_images_in_chunks_equal_all_at_once(kind, dtype, monkeypatch):
    choice = replace((KINDS | SHARED)[kind], num_tokens=100)
    attention = built(choice, maps=True, logits=True).to(dtype)
    x = tokens(images=41, count=101).to(dtype)
    given = None
    if kind in SHARED:
        with torch.no_grad():
            provider = built(replace(KINDS["plain"], num_tokens=100), maps=True, logits=True).to(dtype)
            maps, logits = provider(x, None)[1]
            given = Provided(maps, logits[:, : choice.num_real])
    sizes = set()

    def watched(v, *rest, original=images_at_once):
        sizes.add(original(v, *rest))
        return original(v, *rest)

    monkeypatch.setattr(home_of(attention), "images_at_once", watched)
    (chunked, exported), (whole, expected) = in_chunks_and_at_once(attention, x, given, monkeypatch)
    assert kind == "shared" or max(sizes) < 41
    tolerance = 1e-6 if dtype is torch.float32 else 1e-2
    assert torch.allclose(chunked, whole, atol=tolerance)
    for ours, theirs in zip(exported, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=tolerance)
    with torch.no_grad():
        assert torch.equal(chunked, attention(x, given)[0])


@pytest.mark.parametrize("kind", ["plain", "copy one", "copy most"])
def test_bf16_inference_without_exports_in_chunks_equals_all_at_once(kind, monkeypatch):
    attention = built(replace(KINDS[kind], num_tokens=100)).to(torch.bfloat16)
    x = tokens(images=120, count=101).to(torch.bfloat16)
    (chunked, _), (whole, _) = in_chunks_and_at_once(attention, x, None, monkeypatch)
    assert torch.allclose(chunked, whole, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS | SHARED)
@pytest.mark.parametrize(("patches", "images"), [(16, 1), (16, 2), (144, 1), (144, 30)])
def test_macs_are_the_same_for_any_batch_precision_and_mode(kind, patches, images):
    choice, d = replace((KINDS | SHARED)[kind], num_tokens=patches), FIXED.head_dim
    T, H, R, E = patches + 1, 3, choice.num_real, choice.num_hallucinated
    derived = 0 if choice.hallucination not in MIXES else E * R * T * T
    if choice.hallucination == "mix_conv":
        derived += 9 * E * patches**2
    for exports, dtype, recorded in product([False, True], [torch.float32, torch.bfloat16], [False, True]):
        attention = built(choice, maps=exports, logits=exports).to(dtype)
        x, given, rows, scores = torch.zeros(images, T, DIM, dtype=dtype), None, H * d, 0
        if kind in SHARED:
            given = Provided(torch.zeros(images, H, T, T).to(dtype), torch.zeros(images, R, T, T).to(dtype))
        else:
            rows += 2 * R * d
            fused_copies = choice.hallucination == "copy" and not exports
            scores = (H if fused_copies else R) * T * T * d
        macs = T * DIM * rows + scores + derived + H * T * T * d + T * H * d * DIM
        with torch.set_grad_enabled(recorded), flop_counter() as counted:
            attention(x, given)
        assert counted.get_total_flops() == 2 * images * macs, (exports, dtype, recorded)


@pytest.mark.parametrize("kind", ["copy most", "mix one", "mix_conv most", "shared", "shared, mix_conv"])
def test_whole_programs_are_exported_for_any_batch(kind):
    attention = built((KINDS | SHARED)[kind]).requires_grad_(False)
    choice = (KINDS | SHARED)[kind]
    given = provided_by(real=choice.num_real) if kind in SHARED else None
    batch = torch.export.Dim("batch", min=2)
    shapes = [{0: batch}, None if given is None else Provided({0: batch}, {0: batch})]
    with torch.no_grad():
        program = torch.export.export(attention, (tokens(), given), dynamic_shapes=tuple(shapes))
        x = tokens(seed=4, images=2)
        fewer = None if given is None else Provided(*(part[:2] for part in given))
        expected = attention(x, fewer)[0]
    assert torch.allclose(program.module()(x, fewer)[0], expected, atol=1e-5)


def test_each_kind_has_its_module():
    kinds = {
        "dynamic": DynamicAttention,
        "static": StaticAttention,
        "shared": SharedAttention,
        "linear": LinearAttention,
    }
    for kind, module in kinds.items():
        assert type(built(replace(layer(), attention=kind))) is module


def test_guided_static_attention_has_queries_and_keys():
    context = LayerContext(tokens_before=TOKENS)
    attention = build_operator("static", DIM, layer(), context, FIXED, guided=True)
    assert attention.qkv.weight.shape == (3 * DIM, DIM)


@pytest.mark.parametrize("kind", ["plain", "copy one", "shared"])
def test_guidance_is_for_others(kind):
    attention, given = built((KINDS | SHARED)[kind]), provided_by()
    guidance = Guidance(static=0.5)
    guided, unguided = attention(tokens(), given, guidance)[0], attention(tokens(), given)[0]
    assert torch.equal(guided, unguided)
