from itertools import product

import pytest
import torch
from factories import backbone
from small_spaces import randomise
from torch.utils.flop_counter import FlopCounterMode

from nas.arch.architecture import LayerChoice, LayerContext
from nas.arch.operators import HALLUCINATION
from nas.model.block import build_operator
from nas.model.layers import hallucination
from nas.model.layers.hallucination import Hallucinate

HEADS = [(1, 1), (2, 1), (2, 2), (3, 2), (1, 2), (2, 3), (2, 5)]  # real, derived
VARIANTS = list(HALLUCINATION)
T = 17


def built(real: int, derived: int, variant: str, *, prefix: int = 1, seed: int | None = 0) -> Hallucinate:
    module = Hallucinate(real, derived, variant, prefix)
    if seed is not None:
        randomise(module, seed)
    return module


def logits_of(real: int, *, images: int = 3, tokens: int = T, seed: int = 1) -> torch.Tensor:
    return torch.randn(images, real, tokens, tokens, generator=torch.Generator().manual_seed(seed))


def by_formula(module: Hallucinate, logits: torch.Tensor) -> torch.Tensor:
    """Head by head and tap by tap."""
    real, prefix = logits.shape[1], module.prefix
    heads = list(logits.unbind(1))
    for j in range(module.derived):
        parent = logits[:, j % real]
        if module.gain is not None:
            heads.append(module.gain[j] * parent)
            continue
        head = parent + sum(module.mix[j, g] * logits[:, g] for g in range(real))
        if module.conv is not None:
            patches = parent[:, prefix:, prefix:]
            side = patches.shape[1]
            padded = torch.nn.functional.pad(patches, (1, 1, 1, 1))
            for dy, dx in product(range(3), range(3)):
                near = padded[:, dy : dy + side, dx : dx + side]
                head[:, prefix:, prefix:] += module.conv.weight[j, 0, dy, dx] * near
        heads.append(head)
    return torch.stack(heads, dim=1)


@pytest.mark.parametrize(("real", "derived"), HEADS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_derived_heads_start_as_their_parents(variant, real, derived):
    logits = logits_of(real)
    every = built(real, derived, variant, seed=None)(logits)
    assert torch.equal(every, logits[:, [h % real for h in [*range(real), *range(derived)]]])


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize(("real", "derived"), HEADS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("recorded", [True, False], ids=["with_gradients", "without"])
def test_logits_follow_the_formula(variant, real, derived, prefix, recorded):
    module, logits = built(real, derived, variant, prefix=prefix), logits_of(real)
    with torch.set_grad_enabled(recorded):
        every = module(logits)
    assert torch.equal(every[:, :real], logits)
    assert torch.allclose(every, by_formula(module, logits), atol=1e-5)


# Prime, with divisors up to 16, and square; few channels are filled up with blocks of rows.
@pytest.mark.parametrize("patches", [127, 128, 131, 169, 196])
@pytest.mark.parametrize(("images", "derived"), [(1, 1), (1, 3), (2, 2), (5, 1), (17, 1)])
def test_large_maps_are_filtered_in_blocks_to_the_same_end(patches, images, derived):
    module, logits = built(2, derived, "mix_conv"), logits_of(2, images=images, tokens=patches + 1)
    expected = module(logits)
    with torch.no_grad():
        assert torch.allclose(module(logits), expected, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_class_row_and_column_are_mixed_but_not_filtered(variant):
    logits = logits_of(2)
    filtered = built(2, 2, variant)
    moved = logits.clone()
    moved[:, :, 1:, 1:] += 1
    difference = (filtered(moved) - filtered(logits))[:, 2:]
    assert (difference[:, :, 0] == 0).all()
    assert (difference[:, :, :, 0] == 0).all()
    assert (difference[:, :, 1:, 1:] != 0).all()


@pytest.mark.parametrize(("real", "derived"), HEADS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_those_of_the_formula(variant, real, derived):
    module, logits = built(real, derived, variant).double(), logits_of(real).double()
    weights = list(module.parameters())
    (ours, theirs) = (
        torch.autograd.grad(f(logits.requires_grad_()).square().sum(), [logits, *weights])
        for f in (module, lambda x: by_formula(module, x))
    )
    assert all(torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_have_their_names_and_first_values(variant):
    module = built(2, 3, variant, seed=None)
    shapes = {"gain": (3,), "mix": (3, 2), "conv.weight": (3, 1, 3, 3)}
    names = {"copy": ["gain"], "mix": ["mix"], "mix_conv": ["mix", "conv.weight"]}[variant]
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {n: shapes[n] for n in names}
    for name, parameter in module.named_parameters():
        first = hallucination.INITIAL[f"hallucinate.{name}"](torch.empty(shapes[name]))
        assert torch.equal(parameter, first)


@pytest.mark.parametrize("kind", ["dynamic", "shared"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_holds_them_under_the_names_that_have_first_values(kind, variant):
    layer = LayerChoice(
        num_tokens=16, num_heads=3, mlp_ratio=2, attention=kind, hallucination_ratio=0.4, hallucination=variant
    )
    attention = build_operator(kind, 24, layer, LayerContext(tokens_before=16), backbone(), guided=False)
    own = {name for name, _ in attention.named_parameters() if name.startswith("hallucinate")}
    assert own
    assert own <= set(attention.INITIAL)


@pytest.mark.parametrize("images", [1, 2, 20])
@pytest.mark.parametrize("tokens", [17, 131, 197])
@pytest.mark.parametrize(("real", "derived"), [(2, 1), (1, 3)])
def test_macs_are_those_of_the_mix_and_the_filter_for_any_batch(real, derived, tokens, images):
    logits = torch.empty(images, real, tokens, tokens, device="cpu")
    expected = {
        "copy": 0,
        "mix": derived * real * tokens**2,
        "mix_conv": derived * (real * tokens**2 + 9 * (tokens - 1) ** 2),
    }
    for variant, macs in expected.items():
        module = built(real, derived, variant)
        for recorded in (True, False):
            with torch.set_grad_enabled(recorded), FlopCounterMode(display=False) as counted:
                module(logits)
            assert counted.get_total_flops() == 2 * images * macs, (variant, recorded)
