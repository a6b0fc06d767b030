"""What to train of a trained ViT where images are few: all, early layers more slowly, or head and norms alone.

    python benchmarks/few_images.py [--images 50 200 1000] [--steps 100 400] [--seeds 0 1]

A plain ViT is trained on half of the classes of a data set. A supernet of narrower networks starts from it as `--init`
does, and is trained on a few images of the other classes by each recipe; top-1 of five subnets on their search split.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import write_table
from zero_shot import train

from nas.arch import Architecture, Backbone, LayerChoice
from nas.data import ImageSet, load_images
from nas.evaluation import count_correct, top1_percent
from nas.initial import warm_start
from nas.model import Supernet
from nas.settings import DataConfig, TrainConfig
from nas.space import LayerDomain, SearchSpace
from nas.training import SupernetTrainer

CPU = torch.device("cpu")
DEPTH, HEADS, HEAD_DIM, CLASSES = 6, 4, 12, 5
BACKBONE = Backbone(image_size=16, patch_size=4, num_classes=CLASSES, head_dim=HEAD_DIM)
RECIPES: dict[str, dict[str, Any]] = {
    "all": {},
    "all, layer decay 0.75": {"layer_decay": 0.75},
    "head and norms": {"trainable": "head_and_norms"},
}
RATES = {"all": (5e-4, 2e-3), "all, layer decay 0.75": (5e-4, 2e-3), "head and norms": (5e-4, 2e-3, 8e-3)}


def space_of() -> SearchSpace:
    """Networks of half to all of the width, heads and neurons."""
    domain = LayerDomain(num_tokens=(BACKBONE.num_patches,), num_heads=(2, 3, 4), mlp_ratio=(2.0, 4.0))
    widths = tuple(HEADS * HEAD_DIM * share // 4 for share in (2, 3, 4))
    return SearchSpace(name="few", backbone=BACKBONE, embed_dim=widths, depth=(DEPTH,), layers=(domain,) * DEPTH)


def subnets() -> list[Architecture]:
    """The whole network, each size alone at less, and all of them."""
    found = []
    for width, heads, ratio in ((48, 4, 4.0), (36, 4, 4.0), (48, 3, 4.0), (48, 4, 2.0), (24, 2, 2.0)):
        layer = LayerChoice(num_tokens=BACKBONE.num_patches, num_heads=heads, mlp_ratio=ratio)
        found.append(Architecture(embed_dim=width, layers=(layer,) * DEPTH))
    return found


def part_of(images: ImageSet, first: int, count: int, seed: int) -> ImageSet:
    """So many images of five classes, from the first one on, as many of each."""
    rng, chosen = np.random.default_rng(seed), list[int]()
    for label in range(first, first + CLASSES):
        places = np.flatnonzero(images.labels == label)
        chosen += rng.permutation(places)[: count // CLASSES].tolist()
    info = replace(images.info, class_names=images.info.class_names[first : first + CLASSES])
    return ImageSet(images.images[chosen], images.labels[chosen] - first, info)


def main() -> None:
    """Train the start, then all recipes from it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="parquet:fashion-mnist-train.parquet,fashion-mnist-test.parquet")
    parser.add_argument("--images", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--start-images", type=int, default=10_000)
    parser.add_argument("--start-epochs", type=int, default=5)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data, _ = load_images(DataConfig(spec=asked.data), BACKBONE.image_size, seed=0)
    search = part_of(data.search, CLASSES, 2000, 0)
    started = time.process_time()
    model = train(part_of(data.train, 0, asked.start_images, 0), BACKBONE, asked.start_epochs, 0)
    own = part_of(data.search, 0, 1000, 0)
    top1 = top1_percent(count_correct(model, own, batch_size=100, device=CPU, precision="fp32"))
    print(f"start: {top1:.1f} % on its own classes, {time.process_time() - started:.0f} CPU s", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # Without its classifier: it is of other classes.
        torch.save({k: v for k, v in model.state_dict().items() if not k.startswith("head.")}, f"{folder}/vit.pth")
        for images, seed in product(asked.images, asked.seeds):
            few = part_of(data.train, CLASSES, images, seed)
            first = Supernet(space_of())
            warm_start(first, f"file:{folder}/vit.pth", few, ordered=True, device=CPU)
            jobs = [(name, lr, steps) for name in asked.recipes for lr in RATES[name] for steps in asked.steps]
            for name, lr, steps in (("none", 0.0, 0), *jobs):
                begun, supernet = time.process_time(), first.eval()
                if steps:
                    config = TrainConfig(epochs=max(1, steps // max(1, images // 64)), lr=lr, **RECIPES[name])
                    trainer = SupernetTrainer(
                        Supernet(space_of()), few, config, seed=seed, device=CPU, precision="fp32",
                        directory=Path(folder) / f"{images}-{seed}-{name}-{lr}-{steps}",
                        start=lambda fresh, first=first: fresh.load_state_dict(first.state_dict()),
                    )  # fmt: skip
                    supernet = trainer.run()
                seconds = time.process_time() - begun
                tops = [
                    top1_percent(
                        count_correct(supernet.extract(one), search, batch_size=100, device=CPU, precision="fp32")
                    )
                    for one in subnets()
                ]
                rows.append({
                    "images": images, "seed": seed, "recipe": name, "lr": lr, "steps": steps,
                    "whole_percent": round(tops[0], 1), "mean_percent": round(float(np.mean(tops)), 1),
                    "smallest_percent": round(tops[-1], 1), "cpu_s": round(seconds, 1),
                })  # fmt: skip
                print(*rows[-1].values(), sep="\t", flush=True)
    write_table(
        "few_images",
        rows,
        f"{asked.data.partition(':')[2].partition('-train')[0]}, 16 px: supernets from a ViT of width 48 trained on "
        f"{asked.start_images} images of five classes ({top1:.1f} %), on so many images of the other five; top-1 on "
        f"{len(search)} search images of the whole network, of the mean of five subnets, and of the smallest",
    )


if __name__ == "__main__":
    main()
