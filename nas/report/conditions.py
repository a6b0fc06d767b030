"""Under which circumstances numbers hold, in words."""

from nas.base import plural
from nas.runs import Conditions


def conditions_lines(conditions: Conditions) -> list[str]:
    """Under which circumstances a table or figure holds: accuracy, latency, software."""
    c = conditions
    return [
        f"top-1: {c.num_images} images of the {c.split} split, {c.precision}, weights {c.supernet}",
        f"latency: {c.target} on {c.device}, batch of {c.latency_batch_size}, "
        f"{plural(c.latency_threads, 'thread')}, {c.latency_stage} stage, torch {c.torch}",
    ]
