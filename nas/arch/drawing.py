"""An architecture as one line: a glyph a layer."""

from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.operator import Look
from nas.arch.operators import ATTENTION

LOOKS = tuple(look for kind in ATTENTION.values() for look in kind.looks)
FEWER_TOKENS = "▾"
LEGEND = "  ".join(f"{look.glyph} {look.name}" for look in LOOKS) + f"  {FEWER_TOKENS} fewer tokens"


def look_of(layer: LayerChoice) -> Look:
    """How a layer is drawn: by its attention, and where that has two looks by whether heads are derived."""
    return layer.kind.looks[-1 if layer.num_hallucinated else 0]


def draw_layers(architecture: Architecture) -> str:
    """One glyph a layer, a mark before one with fewer tokens than what arrives, and first a stem other than patch."""
    glyphs = ((FEWER_TOKENS if layer.reducer else "") + look_of(layer).glyph for layer in architecture.layers)
    return ("" if architecture.stem == "patch" else f"{architecture.stem} ") + "".join(glyphs)


def channels_of(architecture: Architecture) -> str:
    """The width in words, or both where the layers become wider."""
    first, last = architecture.embed_dim, architecture.widths[-1]
    return f"{first} channels" if first == last else f"{first} to {last} channels"
