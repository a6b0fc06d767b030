"""GLAD: the average plus what learned queries gather from all tokens (DGSSA + GLAD, arXiv 2310.07664)."""

from nas.arch.operator import Operations, Reducer, Sizes


def _cost(s: Sizes) -> Operations:
    """Scores of the queries and the gathering; queries, gain and norm are learned."""
    return (("glad", 2 * s.N * s.before * s.D, s.N * s.D + 3 * s.D),)


def _memory(s: Sizes, B: int) -> int:
    """All tokens normalised, the weights of the gathering, and the three parts of the result."""
    new, whole = B * s.N * s.D, B * (s.before + s.T - s.N)
    weights, normed = B * s.N * s.before, whole * s.D
    return max(normed + 2 * whole, normed + s.N * s.D + weights, normed + 2 * weights, normed + weights + new, 3 * new)


GLAD = Reducer(
    name="glad",
    words="the average plus what learned queries gather from all tokens",
    rank=30,
    colour=(0, 158, 115),
    keeps_grid=False,
    cost=_cost,
    memory=_memory,
)
