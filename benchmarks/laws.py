"""Laws 1 to 4 over random architectures of a shipped space, at its real size.

    python benchmarks/laws.py [--space search_spaces/joint_tiny.yaml] [--count 1000]

The test suite proves the same on small spaces, where all pairs of neighbouring operators are listed; this is the
large one, too slow for a suite. Law 2 is of a timm ViT with random weights; a third of the draws is stratified.
"""

import argparse
import time
from itertools import pairwise

import numpy as np
import torch
from tables import write_table
from timm.models.vision_transformer import VisionTransformer
from torch.utils.flop_counter import FlopCounterMode

from nas.arch import Architecture, LayerChoice, cost
from nas.model import Subnet, Supernet
from nas.space import SearchSpace


def operators(architecture: Architecture) -> set[tuple[object, object]]:
    """Pairs of operators (attention, variant, reducer, low rank or not) in neighbouring layers."""

    def of(layer: LayerChoice) -> tuple[object, ...]:
        return layer.attention, layer.hallucination, layer.reducer, layer.ffn_rank < 1

    return {(of(a), of(b)) for a, b in pairwise(architecture.layers)}


def counted(architecture: Architecture, space: SearchSpace) -> int:
    """FLOPs that torch's counter finds, on the meta device."""
    with torch.device("meta"):
        subnet = Subnet(space.backbone, architecture).eval()
        images = torch.empty(1, 3, space.backbone.image_size, space.backbone.image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        subnet(images)
    return counter.get_total_flops()


def main() -> None:
    """Check, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="search_spaces/joint_tiny.yaml")
    parser.add_argument("--count", type=int, default=1000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    space = SearchSpace.from_yaml(asked.space)
    rng = np.random.default_rng(0)
    drawn = [space.smallest(), space.largest()]
    while len(drawn) < asked.count:
        drawn.append(space.sample_stratified(rng) if len(drawn) % 3 == 0 else space.sample(rng))
    supernet, generator = Supernet(space).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():  # operators start at zero or one: let them act
            if not name.endswith(("norm1.weight", "norm2.weight")):
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    side = space.backbone.image_size
    images = torch.randn(1, 3, side, side, generator=generator)
    failures = {"1 supernet = extracted": 0, "3 MACs": 0, "3 parameters": 0, "4 decode(encode)": 0, "4 JSON": 0}
    pairs: set[tuple[object, object]] = set()
    started = time.monotonic()
    for i, architecture in enumerate(drawn):
        pairs |= operators(architecture)
        with torch.no_grad():
            subnet = supernet.extract(architecture)
            failures["1 supernet = extracted"] += not torch.equal(supernet(images, architecture), subnet(images))
        failures["3 MACs"] += counted(architecture, space) != 2 * cost.macs(architecture, space.backbone)
        total = sum(parameter.numel() for parameter in subnet.parameters())
        failures["3 parameters"] += total != cost.params(architecture, space.backbone)
        failures["4 decode(encode)"] += space.decode(space.encode(architecture)) != architecture
        again = Architecture.from_json(architecture.to_json())
        failures["4 JSON"] += again != architecture or again.digest != architecture.digest
        if i % 50 == 49:
            left = (time.monotonic() - started) / (i + 1) * (len(drawn) - i - 1)
            print(f"{i + 1} of {len(drawn)}, {left:.0f} s left", failures, flush=True)
    rows = [
        {"law": law, "architectures": len(drawn), "failures": count, "greatest_difference": ""}
        for law, count in failures.items()
    ]
    rows.append({"law": "2 timm's logits", "architectures": 1, "failures": "", "greatest_difference": timm_gap(space)})
    rows[-1]["failures"] = int(float(rows[-1]["greatest_difference"]) > 1e-5)
    write_table(
        "laws",
        rows,
        f"{space.name}, seed 0, one image, fp32; {len({a.digest for a in drawn})} different architectures with "
        f"{len(pairs)} different pairs of neighbouring operators",
    )


def timm_gap(space: SearchSpace) -> str:
    """Greatest difference between a timm ViT's logits and those of the dense subnet with its weights."""
    largest, backbone = Supernet(space).dense().architecture, space.backbone
    torch.manual_seed(0)
    theirs = VisionTransformer(
        img_size=backbone.image_size,
        patch_size=backbone.patch_size,
        num_classes=backbone.num_classes,
        embed_dim=largest.embed_dim,
        depth=largest.depth,
        num_heads=largest.embed_dim // backbone.head_dim,
    ).eval()
    supernet = Supernet(space).eval()
    supernet.load_timm(theirs.state_dict())
    images = torch.randn(2, 3, backbone.image_size, backbone.image_size)
    with torch.no_grad():
        return f"{float((supernet.dense()(images) - theirs(images)).abs().max()):.2g}"


if __name__ == "__main__":
    main()
