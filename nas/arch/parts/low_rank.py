"""The feed-forward, whole or with its hidden-to-output matrix as two thin factors (cFFN, arXiv 2306.10875).

Letters: D channels, F hidden channels, N patch tokens, T tokens, B images, r rank.
"""

from nas.arch.backbone import Backbone
from nas.arch.operator import Operations

ROUNDING = 1e-9


def stored_rank(mlp_ratio: float, ffn_rank: float) -> float:
    """A rank as a share of D, as it is stored: one that saves nothing is 1, not factorised (C14)."""
    return 1.0 if ffn_rank >= mlp_ratio / (mlp_ratio + 1) - ROUNDING else ffn_rank


def feed_forward_operations(
    mlp_ratio: float, ffn_rank: float, N: int, D: int, convolves: bool, backbone: Backbone
) -> Operations:
    """Of both layers: D F + F D, or D F + F r + r D multiply-accumulates a token; 9 F a patch between them."""
    F, T = round(D * mlp_ratio), N + backbone.num_prefix_tokens
    weights = 2 * D * F
    if ffn_rank < 1:
        rank = round(D * ffn_rank)
        weights = D * F + rank * (F + D)
    convolution = (("mlp_conv", 9 * N * F, 10 * F),) if convolves else ()
    return (("mlp", T * weights, weights + F + D), *convolution)


def feed_forward_memory(
    mlp_ratio: float, ffn_rank: float, N: int, D: int, convolves: bool, backbone: Backbone, B: int = 1
) -> int:
    """Most values alive at once beside what is held, provided and exported."""
    F, T = round(D * mlp_ratio), N + backbone.num_prefix_tokens
    X, hidden, rank = B * T * D, B * T * F, B * T * round(D * ffn_rank)
    between = 2 * hidden
    if convolves and backbone.num_prefix_tokens:  # patches go back behind the prefix
        between += B * N * F
    if ffn_rank < 1:
        return 2 * X + max(between, hidden + rank, rank + X)
    return 2 * X + max(between, hidden + X)


def feed_forward_features(ffn_rank: float, macs: int) -> dict[str, int]:
    """MACs of whole matrices and of factors, which run at different speeds, and how often there are factors."""
    return {"mlp full": macs} if ffn_rank >= 1 else {"mlp factors": macs, "layers of factors": 1}
