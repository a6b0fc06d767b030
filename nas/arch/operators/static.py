"""Static attention: learned maps, the same for every image (DGSSA, arXiv 2310.07664)."""

from collections.abc import Iterator

from nas.arch.operator import AttentionKind, Look, Operations, Place, Sizes, Stage
from nas.arch.parts.key_reduction import key_inputs, reduction_memory, reduction_operations


def _cost(s: Sizes) -> Operations:
    """Values only, and a learned map a head."""
    return (
        *reduction_operations(s),
        ("v", s.K * s.D * s.H * s.d, (s.D + 1) * s.H * s.d),
        ("static_map", 0, s.H * s.T * s.K),
        ("mix_values", s.H * s.T * s.K * s.d, 0),
        ("proj", s.T * s.H * s.d * s.D, (s.H * s.d + 1) * s.D),
    )


def _memory(s: Sizes, B: int) -> Iterator[Stage]:
    """The maps are weights, which are not counted."""
    V, Y = B * s.K * s.H * s.d, B * s.T * s.H * s.d
    yield from reduction_memory(s, B)
    yield "v", key_inputs(s, B) + V
    yield "mix_values", V + max(V, Y)
    yield "proj", Y + (Y if s.H > 1 or B > 1 else 0) + B * s.T * s.D


def _broken(at: Place) -> str:
    """A map belongs to places on the grid, in a space before tokens are reduced (C7)."""
    if at.space is None:
        return ""
    rules, backbone = at.space
    if not at.on_grid:
        return "static behind a glad (C7)"
    if rules.static_after_reduction or at.tokens == backbone.num_patches:
        return ""
    return "static behind a reduction; allow it by rules.static_after_reduction (C7)"


def _features(s: Sizes) -> dict[str, int]:
    """Entries of maps that are read."""
    return {"maps static": s.H * s.T * s.K}


STATIC = AttentionKind(
    name="static",
    words="learned maps, the same for every image",
    order=10,
    rank=20,
    looks=(Look("static", "■", (204, 121, 167)),),
    rule="C7",
    own_maps=False,
    cost=_cost,
    memory=_memory,
    broken=_broken,
    features=_features,
)
