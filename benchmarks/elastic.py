"""What is left of a trained ViT that is cut without any training: a linear probe and agreement on real photographs.

    python benchmarks/elastic.py --weights vit_small.safetensors --data folder:caltech101 [--draws 3]

The supernet starts as `--init file:` does (plain weights of patch 14 and heads of 64 channels; nothing of them is
kept): as the weights are; ordered and rotated by 256 images of each draw (`order_by_importance`); and with matrices
fitted to what is left of their inputs besides (`fit_cuts`). The probe is the classifier that `--init` fits to the whole
network's features of 6 training images a class, and subnets inherit; queries are 4 a class of the search split, at 112
px. `agreement` is the metric of that name on the queries. What has ended is a line of results/elastic/runs.jsonl and is
not repeated. Writes results/reference/elastic.csv.
"""

import argparse
import json
from dataclasses import replace
from functools import cache
from statistics import mean
from typing import Any

import numpy as np
import torch
from tables import REFERENCE, write_table
from torch import Tensor

from nas.arch import Architecture, Backbone, LayerChoice, cost
from nas.data import ImageSet, load_images
from nas.evaluation import agreement
from nas.initial import initial_weights, order_by_importance, plain_subnet
from nas.model import Subnet, Supernet
from nas.settings import DataConfig
from nas.space import LayerDomain, SearchSpace
from nas.training import Calibration, calibrate, fit_cuts, fit_head

OUT = REFERENCE.parent / "elastic" / "runs.jsonl"
BACKBONE = Backbone(image_size=112, patch_size=14, num_classes=0, head_dim=64)
IMAGES, GALLERY, QUERIES, BATCH = 256, 6, 4, 64
STARTS = ("as trained", "ordered", "fitted")
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


def space_of(backbone: Backbone, width: int, depth: int) -> SearchSpace:
    """All cuts and what lies between them."""
    widths, heads, ratios = zip(*CUTS.values(), strict=True)
    domain = LayerDomain(
        num_tokens=(BACKBONE.num_patches,),
        num_heads=tuple(sorted({round(width // BACKBONE.head_dim * share) for share in heads})),
        mlp_ratio=tuple(sorted({4 * share for share in ratios})),
    )
    return SearchSpace(
        name="elastic",
        backbone=backbone,
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
def answers(network: Subnet, images: ImageSet) -> tuple[Tensor, Tensor]:
    """Features [n, width] and logits [n, classes]."""
    starts = range(0, len(images), BATCH)
    batches = (images.normalized(slice(start, min(start + BATCH, len(images)))) for start in starts)
    rows = torch.cat([network.forward_head(network.forward_features(pixels), pre_logits=True) for pixels in batches])
    return rows, network.head(rows)


def main() -> None:
    """Cut, measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True, help="a file of a plain ViT")
    parser.add_argument("--data", required=True)
    parser.add_argument("--draws", type=int, default=3)
    asked = parser.parse_args()
    data, _ = load_images(DataConfig(spec=asked.data), BACKBONE.image_size, seed=0)
    gallery, queries = of_each_class(data.train, GALLERY), of_each_class(data.search, QUERIES)
    backbone = replace(BACKBONE, num_classes=data.info.num_classes)
    weights = initial_weights(f"file:{asked.weights}", backbone)
    depth = sum(name.endswith("norm1.weight") for name in weights)
    space = space_of(backbone, weights["pos_embed"].shape[-1], depth)

    def batches(draw: int) -> tuple[Tensor, ...]:
        drawn = np.random.default_rng(draw).permutation(len(data.train))[:IMAGES]
        return data.train.chosen(drawn).normalized(slice(None)).split(BATCH)

    @cache
    def calibrated(draw: int) -> Calibration:
        return calibrate(plain_subnet(weights, backbone), batches(draw))

    OUT.parent.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = [json.loads(line) for line in OUT.read_text().splitlines()] if OUT.exists() else []
    for draw in range(asked.draws):
        for start in STARTS[draw > 0 :]:  # what is not ordered is not drawn
            ended = {(line["draw"], line["start"], line["cut"]) for line in lines}
            left = [name for name in CUTS if (draw, start, name) not in ended]
            if not left:
                continue
            supernet = Supernet(space).eval()
            supernet.load_timm(weights)
            if start != "as trained":
                fitted = start == "fitted"
                supernet.load_timm(order_by_importance(weights, backbone.head_dim, calibrated(draw), fitted=fitted))
                if fitted:
                    fit_cuts(supernet, batches(draw))
            fit_head(supernet, gallery)
            whole, _ = answers(supernet.dense(), queries)
            for name in left:
                architecture = cut(space, CUTS[name])
                features, logits = answers(supernet.extract(architecture), queries)
                line = {"draw": draw, "start": start, "cut": name, "found": logits.argmax(dim=1).tolist()}
                line |= {"macs": cost.macs(architecture, backbone), "agreement": agreement(features, whole)}
                lines.append(line)
                with OUT.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(draw, start, name, line["agreement"], top1(line, queries), flush=True)
    rows, whole_macs = [], lines[0]["macs"]
    for name in CUTS:
        for start in STARTS:
            its = [line for line in lines if (line["start"], line["cut"]) == (start, name)]
            if its:
                found, alike = [top1(line, queries) for line in its], [line["agreement"] for line in its]
                rows.append(
                    {"cut": name, "start": start, "macs_over_whole": round(its[0]["macs"] / whole_macs, 3)}
                    | {"draws": len(its), "top1_percent": round(mean(found), 1), "top1_least": round(min(found), 1)}
                    | {"top1_most": round(max(found), 1), "agreement_percent": round(mean(alike), 1)}
                )
    write_table(
        "elastic",
        rows,
        f"plain ViT of width {max(space.embed_dim)}, {depth} layers, {BACKBONE.image_size} px, cut without training: "
        f"linear probe of the whole network on {len(gallery)} images, and its agreement, on {len(queries)} others of "
        f"{data.info.num_classes} classes; ordered and fitted by {IMAGES} images a draw",
    )


def top1(line: dict[str, Any], queries: ImageSet) -> float:
    """Percent of the queries that a subnet classifies right."""
    return 100 * float(np.mean(np.array(line["found"]) == queries.labels))


if __name__ == "__main__":
    main()
