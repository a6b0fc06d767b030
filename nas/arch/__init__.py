"""One architecture: what is chosen for every layer, what is fixed, what it costs."""

# fmt: off
from nas.arch import cost, memory, tiling
from nas.arch.architecture import (
    OFF_GRID, Architecture, LayerChoice, LayerContext, sizes_of, token_problems,
)
from nas.arch.backbone import Backbone
from nas.arch.diagnostics import DIAGNOSTICS, dead_operators
from nas.arch.drawing import FEWER_TOKENS, LEGEND, LOOKS, channels_of, draw_layers, look_of
from nas.arch.memory import bytes_to_run, peak_activation_bytes
from nas.arch.operator import Place, Rules, is_square
from nas.arch.operators import ATTENTION, HALLUCINATION, REDUCERS, STEMS
from nas.arch.operators.hallucination import hallucinated_heads
from nas.arch.operators.stems.conv import STEM_KERNEL, stem_channels
from nas.arch.operators.stems.overlap import overlap_kernel
from nas.arch.parts.low_rank import feed_forward_features, feed_forward_memory, stored_rank
from nas.arch.tiling import VALUE_BYTES

__all__ = [
    "ATTENTION", "DIAGNOSTICS", "FEWER_TOKENS", "HALLUCINATION", "LEGEND", "LOOKS", "OFF_GRID", "REDUCERS",
    "STEMS", "STEM_KERNEL", "VALUE_BYTES", "Architecture", "Backbone", "LayerChoice", "LayerContext", "Place",
    "Rules", "bytes_to_run", "channels_of", "cost", "dead_operators", "draw_layers",
    "feed_forward_features", "feed_forward_memory", "hallucinated_heads", "is_square", "look_of",
    "memory", "overlap_kernel", "peak_activation_bytes", "sizes_of", "stem_channels", "stored_rank",
    "tiling", "token_problems",
]
