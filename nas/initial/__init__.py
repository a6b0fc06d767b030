"""Weights that a supernet starts from."""

# fmt: off
from nas.initial.ordering import order_by_importance, pair_heads
from nas.initial.plain import Weights
from nas.initial.pretrained import initial_weights, plain_subnet
from nas.initial.redundancy import rank_supernet, rank_weights
from nas.initial.warm_start import check_init, warm_start

__all__ = [
    "Weights", "check_init", "initial_weights", "order_by_importance", "pair_heads", "plain_subnet",
    "rank_supernet", "rank_weights", "warm_start",
]
