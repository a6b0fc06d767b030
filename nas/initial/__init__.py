"""Weights that a supernet starts from."""

# fmt: off
from nas.initial.kind import facts_of, has_quick_gelu, left_out, settings_for, why_not_plain
from nas.initial.ordering import order_by_importance, pair_heads
from nas.initial.plain import Weights, plain_weights
from nas.initial.pretrained import difference, initial_weights, plain_subnet, start_note
from nas.initial.pvt import from_pvt, pvt_facts, pvt_subnet
from nas.initial.redundancy import rank_supernet, rank_weights
from nas.initial.warm_start import check_init, warm_start

__all__ = [
    "Weights", "check_init", "difference", "facts_of", "from_pvt", "has_quick_gelu", "initial_weights",
    "left_out", "order_by_importance", "pair_heads", "plain_subnet", "plain_weights", "pvt_facts",
    "pvt_subnet", "rank_supernet", "rank_weights", "settings_for", "start_note", "warm_start",
    "why_not_plain",
]
