"""Static attention: learned maps, the same for every image (DGSSA, arXiv 2310.07664)."""

from collections.abc import Iterator

from nas.arch.operator import AttentionKind, Look, Operations, Place, Sizes, Stage


def _cost(s: Sizes) -> Operations:
    """Values only, and a learned map a head."""
    return (
        ("v", s.T * s.D * s.H * s.d, (s.D + 1) * s.H * s.d),
        ("static_map", 0, s.H * s.T * s.T),
        ("mix_values", s.H * s.T * s.T * s.d, 0),
        ("proj", s.T * s.H * s.d * s.D, (s.H * s.d + 1) * s.D),
    )


def _memory(s: Sizes, B: int) -> Iterator[Stage]:
    """The maps are weights, which are not counted."""
    V = B * s.T * s.H * s.d
    yield "v", V
    yield "mix_values", 2 * V
    yield "proj", V + (V if s.H > 1 or B > 1 else 0) + B * s.T * s.D


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
    return {"maps static": s.H * s.T * s.T}


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
