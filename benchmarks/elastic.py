"""What is left of a trained ViT that is cut without any training: 1-NN accuracy of subnets on real photographs.

    python benchmarks/elastic.py --weights vit_small.safetensors --data folder:caltech101 [--draws 3]

The supernet starts as `--init file:` does (plain weights of patch 14 and heads of 64 channels; nothing of them is
kept), as the weights are, and in order (`init_ordered`) by 256 images of each draw. Gallery: 12 training images a
class; queries: 4 a class of the search split, at 112 px. `same` is the share of queries whose nearest image has the
class of the whole network's nearest. What has ended is a line of results/elastic/runs.jsonl and is not repeated.
Writes results/reference/elastic.csv.
"""

import argparse
import json
from statistics import mean
from typing import Any

import numpy as np
import torch
from tables import REFERENCE, write_table
from torch import Tensor
from torch.nn import functional

from nas.arch import Architecture, Backbone, LayerChoice, cost
from nas.data import ImageSet, load_images
from nas.initial import initial_weights, order_by_importance, plain_subnet
from nas.model import Supernet
from nas.settings import DataConfig
from nas.space import LayerDomain, SearchSpace
from nas.training import calibrate

OUT = REFERENCE.parent / "elastic" / "runs.jsonl"
BACKBONE = Backbone(image_size=112, patch_size=14, num_classes=0, head_dim=64)
IMAGES, GALLERY, QUERIES, BATCH = 256, 12, 4, 64
CUTS: dict[str, tuple[float, float, float]] = {  # shares of the width, the heads and the MLP ratio that stay
    "nothing": (1, 1, 1),
    "3/4 of the neurons": (1, 1, 3 / 4),
    "5/6 of the heads": (1, 5 / 6, 1),
    "5/6 of the heads, 3/4 of the neurons": (1, 5 / 6, 3 / 4),
    "4/6 of the heads, 5/8 of the neurons": (1, 4 / 6, 5 / 8),
    "5/6 of width and neurons": (5 / 6, 1, 1),
    "4/6 of width and neurons": (4 / 6, 1, 1),
    "5/6 of width and heads, 5/8 of the neurons": (5 / 6, 5 / 6, 3 / 4),
}


def of_each_class(images: ImageSet, count: int) -> ImageSet:
    """The first so many of every class."""
    chosen = [np.flatnonzero(images.labels == label)[:count] for label in np.unique(images.labels)]
    return images.chosen(np.concatenate(chosen))


def space_of(width: int, depth: int) -> SearchSpace:
    """All cuts and what lies between them."""
    widths, heads, ratios = zip(*CUTS.values(), strict=True)
    domain = LayerDomain(
        num_tokens=(BACKBONE.num_patches,),
        num_heads=tuple(sorted({round(width // BACKBONE.head_dim * share) for share in heads})),
        mlp_ratio=tuple(sorted({4 * share for share in ratios})),
    )
    return SearchSpace(
        name="elastic",
        backbone=BACKBONE,
        embed_dim=tuple(sorted({round(width * share) for share in widths})),
        depth=(depth,),
        layers=(domain,) * depth,
    )


def cut(space: SearchSpace, shares: tuple[float, float, float]) -> Architecture:
    """The subnet that keeps these shares."""
    whole = max(space.embed_dim)
    layer = LayerChoice(
        num_tokens=BACKBONE.num_patches, num_heads=round(whole / BACKBONE.head_dim * shares[1]), mlp_ratio=4 * shares[2]
    )
    return Architecture(embed_dim=round(whole * shares[0]), layers=(layer,) * len(space.layers))


@torch.inference_mode()
def features(supernet: Supernet, architecture: Architecture, images: ImageSet) -> Tensor:
    """[n, width]; of length 1."""
    subnet = supernet.extract(architecture)
    starts = range(0, len(images), BATCH)
    rows = [subnet(images.normalized(slice(start, min(start + BATCH, len(images))))) for start in starts]
    return functional.normalize(torch.cat(rows), dim=1)


def main() -> None:
    """Cut, measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True, help="a file of a plain ViT")
    parser.add_argument("--data", required=True)
    parser.add_argument("--draws", type=int, default=3)
    asked = parser.parse_args()
    data, _ = load_images(DataConfig(spec=asked.data), BACKBONE.image_size, seed=0)
    gallery, queries = of_each_class(data.train, GALLERY), of_each_class(data.search, QUERIES)
    weights = initial_weights(f"file:{asked.weights}", BACKBONE)
    depth = sum(name.endswith("norm1.weight") for name in weights)
    space = space_of(weights["pos_embed"].shape[-1], depth)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = [json.loads(line) for line in OUT.read_text().splitlines()] if OUT.exists() else []
    for draw in range(asked.draws):
        for start in ("as trained", "ordered")[draw > 0 :]:  # what is not ordered is not drawn
            ended = {(line["draw"], line["start"], line["cut"]) for line in lines}
            left = [name for name in CUTS if (draw, start, name) not in ended]
            if not left:
                continue
            its = weights
            if start == "ordered":
                drawn = np.random.default_rng(draw).permutation(len(data.train))[:IMAGES]
                batches = data.train.chosen(drawn).normalized(slice(None)).split(BATCH)
                calibration = calibrate(plain_subnet(weights, BACKBONE), batches)
                its = order_by_importance(weights, BACKBONE.head_dim, calibration)
            supernet = Supernet(space).eval()
            supernet.load_timm(its)
            for name in left:
                architecture = cut(space, CUTS[name])
                near = features(supernet, architecture, queries) @ features(supernet, architecture, gallery).T
                found = gallery.labels[near.argmax(dim=1).numpy()]
                line = {"draw": draw, "start": start, "cut": name, "found": found.tolist()}
                line["macs"] = cost.macs(architecture, BACKBONE)
                lines.append(line)
                with OUT.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(draw, start, name, 100 * float((found == queries.labels).mean()), flush=True)
    rows, whole = [], lines[0]
    for name in CUTS:
        for start in ("as trained", "ordered"):
            its_lines = [line for line in lines if (line["start"], line["cut"]) == (start, name)]
            top1 = [100 * float(np.mean(np.array(line["found"]) == queries.labels)) for line in its_lines]
            same = [100 * float(np.mean(np.array(line["found"]) == whole["found"])) for line in its_lines]
            if top1:
                rows.append(
                    {"cut": name, "start": start, "macs_over_whole": round(its_lines[0]["macs"] / whole["macs"], 3)}
                    | {"draws": len(top1), "top1_percent": round(mean(top1), 1), "top1_least": round(min(top1), 1)}
                    | {"top1_most": round(max(top1), 1), "same_percent": round(mean(same), 1)}
                )
    write_table(
        "elastic",
        rows,
        f"plain ViT of width {max(space.embed_dim)}, {depth} layers, {BACKBONE.image_size} px, cut without training: "
        f"1-NN of {len(queries)} images among {len(gallery)}, {data.info.num_classes} classes; ordered by {IMAGES} "
        "images a draw",
    )


if __name__ == "__main__":
    main()
