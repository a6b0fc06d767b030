"""Where to compute, in which precision, and what the processor is called."""

import torch

from nas.base import ConfigError, command_line
from nas.latency.device_measure import processor
from nas.settings import Precision

SMALLEST_BF16_MACS = 20_000_000  # per image, of the largest subnet


def default_batch(image_size: int) -> int:
    """Images per forward pass where nothing else is said: 1 from 128 px on, 64 below, where 1 is noise."""
    return 1 if image_size >= 128 else 64


def resolve_device(wanted: str) -> torch.device:
    """The device behind `auto`, `cpu` or `cuda`; a ConfigError: CUDA is asked for and not there."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ConfigError(
            "--device cuda: torch sees no CUDA device", hint=f"--device cpu, or `{command_line('doctor')}`"
        )
    return torch.device("cuda" if wanted != "cpu" and available else "cpu")


def resolve_precision(wanted: Precision, device: torch.device, largest_macs: int) -> str:
    """`bf16` where the device multiplies bf16 matrices in hardware and they are large; or what is asked for.

    Below 20 MMACs per image the casts cost more than they save: a training step of the digits space takes
    1.2 to 1.4 times as long in bf16, one of the CIFAR space 0.6 (results/LOG.md).
    """
    if wanted != "auto":
        return wanted
    if largest_macs < SMALLEST_BF16_MACS:
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


def device_name(device: str) -> str:
    """Such as `cpu: Intel(R) Xeon(R) Processor`."""
    return f"cuda: {torch.cuda.get_device_name()}" if device == "cuda" else f"cpu: {processor()}"
