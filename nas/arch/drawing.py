"""An architecture as one line: a glyph a layer."""

from nas.arch.architecture import Architecture, AttentionKind

GLYPHS = {"dynamic": "●", "hallucinated": "◐", "static": "■", "shared": "○", "linear": "◇"}
FEWER_TOKENS = "▾"
LEGEND = "  ".join(f"{glyph} {kind}" for kind, glyph in GLYPHS.items()) + f"  {FEWER_TOKENS} fewer tokens"


def layer_kind(architecture: Architecture, layer: int) -> str:
    """The kind of attention; `hallucinated` is dynamic with derived heads."""
    choice = architecture.layers[layer]
    derived = choice.num_hallucinated and choice.attention is AttentionKind.DYNAMIC
    return "hallucinated" if derived else choice.attention.value


def draw_layers(architecture: Architecture) -> str:
    """One glyph a layer, and a mark before a layer with fewer tokens than what arrives."""
    drawn = []
    for i, layer in enumerate(architecture.layers):
        drawn.append((FEWER_TOKENS if layer.reducer else "") + GLYPHS[layer_kind(architecture, i)])
    return "".join(drawn)
