"""What torch counts: with the fused attention of CPUs, which its counter lacks from 2.14 on (on `meta` it has it)."""

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def flop_counter() -> FlopCounterMode:
    """A counter that counts every operation of a network of ours, on any device."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={fused: _fused_flops})


def _fused_flops(query, key, value, *_, **__):
    return sdpa_flop_count(query, key, value)
