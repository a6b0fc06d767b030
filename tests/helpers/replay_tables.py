"""A small space with made-up answers: larger networks get more images right, with luck of their own."""

import factories
import numpy as np
from replay_evaluator import ReplayTable, all_architectures

from nas.arch import cost
from nas.space.space import parse_space

SPACE = """
name: small_table
backbone: {family: vit, image_size: 8, patch_size: 2, num_classes: 10, head_dim: 8, class_token: true}
embed_dim: [16, 24, 32]
depth: [2, 3]
layers: {num_tokens: [16, 4], attention: [dynamic, shared], num_heads: [1, 2], mlp_ratio: [1, 2]}
overrides: [{layers: first, num_tokens: 16, attention: dynamic}]
"""


def small_table(num_images: int = 400, seed: int = 0) -> ReplayTable:
    space = parse_space(SPACE, "small_table")
    architectures = sorted(all_architectures(space), key=lambda a: int(a.digest, 16))
    rng = np.random.default_rng(seed)
    macs = np.array([cost.macs(a, space.backbone) for a in architectures])
    quality = np.log(macs) / np.log(macs.max()) * 0.9 + rng.normal(0, 0.02, len(macs))
    difficulty = rng.random(num_images)
    correct = difficulty[None] + rng.normal(0, 0.1, (len(macs), num_images)) < quality[:, None]
    return ReplayTable(
        space=space,
        digests=np.array([int(a.digest, 16) for a in architectures], dtype=np.uint64),
        correct=np.packbits(correct, axis=1),
        macs=macs,
        params=np.array([cost.params(a, space.backbone) for a in architectures]),
        latency_ms=(macs / 1e5 * rng.uniform(0.8, 1.2, len(macs))).astype(np.float32),
        conditions=factories.conditions(num_images=num_images),
        text=SPACE,
    )
