"""Layers of dynamic and shared attention with weights that act, and what goes in."""

import torch
from factories import backbone
from small_spaces import randomise

from nas.arch.architecture import LayerChoice, LayerContext
from nas.arch.operators import HALLUCINATION
from nas.model.block import build_operator
from nas.model.layers.hallucination import Hallucinate
from nas.model.layers.maps import Provided

DIM, TOKENS = 24, 16
FIXED = backbone()  # heads of 8 channels, a class token
T = TOKENS + FIXED.num_prefix_tokens
HEADS = [(2, 1), (3, 1), (4, 2), (3, 2), (4, 3), (5, 3)]  # all, hallucinated


def layer(**changes) -> LayerChoice:
    return LayerChoice(**{"num_tokens": TOKENS, "num_heads": 3, "mlp_ratio": 2, **changes})


def hallucinating(heads: int, hallucinated: int, variant: str, **changes) -> LayerChoice:
    ratio = hallucinated / heads
    return layer(num_heads=heads, hallucination_ratio=ratio, hallucination=variant, **changes)


def built(choice: LayerChoice, *, maps: bool = False, logits: bool = False, seed: int = 0, fixed=FIXED):
    context = LayerContext(tokens_before=choice.num_tokens, exports_maps=maps, exports_logits=logits)
    attention = build_operator(choice.attention, DIM, choice, context, fixed, guided=False).eval()
    randomise(attention, seed)
    return attention


def tokens(seed: int = 1, images: int = 3, count: int = T) -> torch.Tensor:
    return torch.randn(images, count, DIM, generator=torch.Generator().manual_seed(seed))


def provided_by(real: int = 3, heads: int = 3, seed: int = 2) -> Provided:
    logits = torch.randn(3, heads, T, T, generator=torch.Generator().manual_seed(seed))
    return Provided(logits.softmax(dim=-1), logits[:, :real])


KINDS = {
    "plain": layer(),
    **{f"{variant} one": hallucinating(3, 1, variant) for variant in HALLUCINATION},
    **{f"{variant} most": hallucinating(3, 2, variant) for variant in HALLUCINATION},
}
SHARED = {
    "shared": layer(attention="shared"),
    **{f"shared, {variant}": hallucinating(3, 1, variant, attention="shared") for variant in HALLUCINATION},
}


def change_nothing(hallucinate: Hallucinate) -> None:
    with torch.no_grad():
        for name, parameter in hallucinate.named_parameters():
            parameter.fill_(1.0 if name == "gain" else 0.0)
