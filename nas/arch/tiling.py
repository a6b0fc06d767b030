"""How much a CPU computes at a time when it only infers, so that what it makes stays in its caches.

The modules obey these numbers and `nas.memory` counts by them.
"""

VALUE_BYTES = 4  # fp32

CHUNK_BYTES = 2**21
"""Maps, or inputs of linear attention, that are dealt with together. All maps of 64 images at once took 2.2 to 4 times
as long (197 tokens, fp32), for their pages are new every time; linear attention up to 1.4 times. Half and twice of it
took the same time."""

CHANNELS_AT_ONCE = 16
"""Channels that the depth-wise convolution of a CPU computes together, also where there are fewer."""

MIN_SPLIT_TOKENS = 128
"""Patch tokens from which splitting a map into blocks of rows pays for itself in that convolution."""


def images_of_maps(num_heads: int, entries: int, bytes_per_value: int, convolved: int = 0) -> int:
    """Images whose maps, of so many entries a head, are made together; `convolved`: derived heads of a convolution."""
    images = max(1, CHUNK_BYTES // (num_heads * entries * bytes_per_value))
    return max(images, CHANNELS_AT_ONCE // convolved) if convolved else images


def images_of_tokens(tokens: int, embed_dim: int, bytes_per_value: int) -> int:
    """Images whose tokens go through linear attention together."""
    return max(1, CHUNK_BYTES // (tokens * embed_dim * bytes_per_value))


def row_blocks(planes: int, num_patches: int) -> int:
    """Blocks of rows that each of so many planes [patches, patches] is convolved in."""
    if num_patches < MIN_SPLIT_TOKENS:
        return 1
    room = max(CHANNELS_AT_ONCE // planes, 1)
    return max(n for n in range(1, room + 1) if num_patches % n == 0)
