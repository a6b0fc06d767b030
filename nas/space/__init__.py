"""The search space: every legal architecture; count, encode, decode, draw."""

# fmt: off
from nas.space import sampling
from nas.space.constraints import Constraints
from nas.space.designs import DESIGNS, is_plain, known_designs, plain_shapes
from nas.space.domain import (
    GENES, AttentionChoice, LayerDomain, attention_choices, feed_forwards, with_feed_forward,
)
from nas.space.reasons import check_memory, notes, why_not_within
from nas.space.sampling import sample_near
from nas.space.space import SearchSpace, parse_space, read_space
from nas.space.walk import State

__all__ = [
    "DESIGNS", "GENES", "AttentionChoice", "Constraints", "LayerDomain", "SearchSpace", "State",
    "attention_choices", "check_memory", "feed_forwards", "is_plain", "known_designs", "notes",
    "parse_space", "plain_shapes", "read_space", "sample_near", "sampling", "why_not_within",
    "with_feed_forward",
]
