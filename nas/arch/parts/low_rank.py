"""The feed-forward, whole or with its hidden-to-output matrix as two thin factors (cFFN, arXiv 2306.10875).

Letters: D channels, F hidden channels, T tokens, B images, r rank.
"""

from nas.arch.operator import Operations

ROUNDING = 1e-9


def stored_rank(mlp_ratio: float, ffn_rank: float) -> float:
    """A rank as a share of D, as it is stored: one that saves nothing is 1, not factorised (C14)."""
    return 1.0 if ffn_rank >= mlp_ratio / (mlp_ratio + 1) - ROUNDING else ffn_rank


def feed_forward_operations(mlp_ratio: float, ffn_rank: float, T: int, D: int) -> Operations:
    """Of both layers: D F + F D, or D F + F r + r D multiply-accumulates a token."""
    F = round(D * mlp_ratio)
    weights = 2 * D * F
    if ffn_rank < 1:
        rank = round(D * ffn_rank)
        weights = D * F + rank * (F + D)
    return (("mlp", T * weights, weights + F + D),)


def feed_forward_memory(mlp_ratio: float, ffn_rank: float, T: int, D: int, B: int) -> int:
    """Most values alive at once beside what is held, provided and exported."""
    X, hidden, rank = B * T * D, B * T * round(D * mlp_ratio), B * T * round(D * ffn_rank)
    if ffn_rank < 1:
        return 2 * X + max(2 * hidden, hidden + rank, rank + X)
    return 2 * X + max(2 * hidden, hidden + X)


def feed_forward_features(ffn_rank: float, macs: int) -> dict[str, int]:
    """MACs of whole matrices and of factors, which run at different speeds, and how often there are factors."""
    return {"mlp full": macs} if ffn_rank >= 1 else {"mlp factors": macs, "layers of factors": 1}
