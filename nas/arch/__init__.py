"""One architecture: what is chosen for every layer, what is fixed, what it costs."""

# fmt: off
from nas.arch import cost, memory, tiling
from nas.arch.architecture import (
    Architecture, AttentionKind, Hallucination, LayerChoice, LayerContext, Reducer, hallucinated_heads,
    is_square,
)
from nas.arch.backbone import Backbone
from nas.arch.drawing import FEWER_TOKENS, GLYPHS, LEGEND, draw_layers, layer_kind
from nas.arch.memory import VALUE_BYTES, bytes_to_run, peak_activation_bytes

__all__ = [
    "FEWER_TOKENS", "GLYPHS", "LEGEND", "VALUE_BYTES", "Architecture", "AttentionKind", "Backbone",
    "Hallucination", "LayerChoice", "LayerContext", "Reducer", "bytes_to_run", "cost", "draw_layers",
    "hallucinated_heads", "is_square", "layer_kind", "memory", "peak_activation_bytes", "tiling",
]
