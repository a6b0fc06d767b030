"""What is left of a trained plain ViT in subnets that were never trained, by how the supernet starts from it.

    python benchmarks/zero_shot.py [--data digits] [--seeds 3] [--epochs 30]
    python benchmarks/zero_shot.py --data parquet:cifar10-train.parquet --seeds 1 --epochs 5

Trains a plain timm ViT without augmentation, starts supernets from its weights in every way there is, and takes
the top-1 of subnets that differ from it in one thing, on the search split.
"""

import argparse
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import write_table
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional

from nas.arch import ATTENTION, Architecture, Backbone, LayerChoice, Rules, cost
from nas.data import ImageSet, load_images
from nas.evaluation import count_correct, top1_percent
from nas.initial import Weights, initial_weights, order_by_importance, pair_heads, plain_subnet
from nas.model import Supernet, svd_factors
from nas.settings import DataConfig
from nas.space import LayerDomain, SearchSpace
from nas.training import Calibration, calibrate, fit_cuts, fit_operators, redundancy_rows, start_operators

DEPTH, HEADS, RATIO = 6, 4, 4.0
SMALL = Backbone(image_size=8, patch_size=2, num_classes=10, head_dim=12)
LARGE = Backbone(image_size=32, patch_size=4, num_classes=10, head_dim=24)
BATCH, LR, CALIBRATION_IMAGES = 64, 3e-3, 1000
CPU = torch.device("cpu")


def train(images: ImageSet, backbone: Backbone, epochs: int, seed: int) -> VisionTransformer:
    """A plain ViT, trained the plain way."""
    torch.manual_seed(seed)
    model = VisionTransformer(
        img_size=backbone.image_size,
        patch_size=backbone.patch_size,
        num_classes=backbone.num_classes,
        embed_dim=HEADS * backbone.head_dim,
        depth=DEPTH,
        num_heads=HEADS,
        mlp_ratio=RATIO,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.05)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            logits, labels = model(images.normalized(chosen)), torch.from_numpy(images.labels[chosen])
            loss = functional.cross_entropy(logits, labels, label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


def space_of(backbone: Backbone) -> SearchSpace:
    """Every operator in every layer, and narrower networks."""
    width = HEADS * backbone.head_dim
    domain = LayerDomain(
        num_tokens=(backbone.num_patches,),
        attention=tuple(ATTENTION),
        hallucination_ratio=(0.0, 0.25, 0.5),
        hallucination=("copy",),
        num_heads=(1, 2, 3, 4),
        ffn_rank=(1 / 12, 1 / 4, 1.0),
        mlp_ratio=(1.0, 2.0, 3.0, 4.0),
    )
    return SearchSpace(
        name="zero_shot",
        backbone=backbone,
        embed_dim=(width // 2, width * 3 // 4, width),
        depth=(DEPTH,),
        layers=(domain,) * DEPTH,
        rules=Rules(max_shared=DEPTH),
    )


class Starts:
    """Supernets that start from one trained ViT, by how."""

    def __init__(self, weights: Weights, space: SearchSpace, images: Tensor) -> None:
        self.space, self.images = space, images
        head_dim = space.backbone.head_dim
        self.calibration = self._watch(weights)
        ordered, replaced = (
            order_by_importance(weights, head_dim, self.calibration, fitted=fitted) for fitted in (False, True)
        )
        halved = pair_heads(weights, head_dim, self.calibration, HEADS // 2)
        less_one = pair_heads(weights, head_dim, self.calibration, HEADS - 1)
        self.supernets = {
            "random operators": self._supernet(weights, None),
            "as trained": self._supernet(weights, self.calibration),
            "ordered": self._supernet(ordered, self._watch(ordered)),
            "fitted": self._supernet(replaced, self._watch(replaced)),
            "2 heads paired": self._supernet(halved, None),
            "1 head paired": self._supernet(less_one, None),
            "plain SVD": self._supernet(weights, None),
        }
        fit_cuts(self.supernets["fitted"], images.split(BATCH))
        stored = dict(self.supernets["plain SVD"].named_parameters())
        with torch.no_grad():
            for i in range(DEPTH):
                down, up = (stored[f"blocks.{i}.mlp.{name}.weight"] for name in ("down", "up"))
                for factor, value in zip(
                    (down, up), svd_factors(stored[f"blocks.{i}.mlp.fc2.weight"], len(down)), strict=True
                ):
                    factor.copy_(value)

    def _watch(self, weights: Weights) -> Calibration:
        return calibrate(plain_subnet(weights, self.space.backbone), self.images.split(BATCH))

    def _supernet(self, weights: Weights, calibration: Calibration | None) -> Supernet:
        supernet = Supernet(self.space)
        supernet.load_timm(weights)
        if calibration is not None:
            start_operators(dict(supernet.named_parameters()), calibration, self.space.backbone)
            fit_operators(supernet, self.images.split(BATCH), gains=True)
        return supernet


NARROW = ("as trained", "ordered", "fitted")
OPERATOR = ("random operators", "as trained")
FACTORS = ("random operators", "plain SVD", "as trained")
UNPAIRED = ("as trained", "ordered")


def subnets(space: SearchSpace, calibration: Calibration) -> Iterable[tuple[str, tuple[str, ...], Architecture]]:
    """What is changed, from which starts it is looked at, and the architecture."""
    width, every = max(space.embed_dim), range(DEPTH)
    plain = LayerChoice(num_tokens=space.backbone.num_patches, num_heads=HEADS, mlp_ratio=RATIO)

    def changed(layers: Iterable[int] = every, embed_dim: int = width, **genes: Any) -> Architecture:
        chosen = set(layers)
        return Architecture(
            embed_dim=embed_dim, layers=tuple(replace(plain, **genes) if i in chosen else plain for i in every)
        )

    yield "nothing", ("as trained",), changed()
    for narrow in sorted(space.embed_dim, reverse=True)[1:]:
        yield f"width {narrow / width:g}", NARROW, changed(embed_dim=narrow)
    for heads in (3, 2, 1):
        yield f"{heads} of {HEADS} heads", NARROW, changed(num_heads=heads)
    for ratio in (3.0, 2.0, 1.0):
        yield f"MLP ratio {ratio:g} of {RATIO:g}", NARROW, changed(mlp_ratio=ratio)
    yield "3 heads, MLP ratio 3", NARROW, changed(num_heads=3, mlp_ratio=3.0)
    rows = redundancy_rows(calibration)
    for column in ("dispersion", "static_change"):
        static = sorted(every, key=lambda i, key=f"{column}_nats": rows[i][key])
        for count in (1, 3):
            yield f"static: {count} of least {column}", OPERATOR, changed(static[:count], attention="static")
            yield (f"static: {count} of most {column}", ("as trained",), changed(static[-count:], attention="static"))
    yield "static: all", OPERATOR, changed(attention="static")
    shared = sorted(every[1:], key=lambda i: -rows[i]["similarity_to_previous"])
    yield "shared: the most like its predecessor", ("as trained",), changed(shared[:1], attention="shared")
    yield "shared: the least like its predecessor", ("as trained",), changed(shared[-1:], attention="shared")
    yield "linear: 1 of least static_change", OPERATOR, changed(static[:1], attention="linear")
    for rank in (1 / 4, 1 / 12):
        yield f"rank {rank:.2g} of the width", FACTORS, changed(ffn_rank=rank)
    yield "1 of 4 heads hallucinated", (*UNPAIRED, "1 head paired"), changed(hallucination_ratio=0.25)
    yield "2 of 4 heads hallucinated", (*UNPAIRED, "2 heads paired"), changed(hallucination_ratio=0.5)


def main() -> None:
    """Train, start, measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    asked = parser.parse_args()
    backbone = SMALL if asked.data == "digits" else LARGE
    data, _ = load_images(DataConfig(spec=asked.data), backbone.image_size, seed=0)
    backbone = replace(backbone, num_classes=data.info.num_classes)
    space = space_of(backbone)
    images = data.train.normalized(slice(0, CALIBRATION_IMAGES))
    top1: dict[tuple[str, str], list[float]] = {}
    macs: dict[str, int] = {}
    for seed in range(asked.seeds):
        model = train(data.train, backbone, asked.epochs, seed)
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder) / "vit.pth")
            weights = initial_weights(f"file:{folder}/vit.pth", backbone)
        starts = Starts(weights, space, images)
        for name, ways, architecture in subnets(space, starts.calibration):
            macs[name] = cost.macs(architecture, backbone)
            for way in ways:
                subnet = starts.supernets[way].extract(architecture)
                correct = count_correct(subnet, data.search, batch_size=64, device=CPU, precision="fp32")
                top1.setdefault((name, way), []).append(top1_percent(correct))
        print("seed", seed, top1["nothing", "as trained"], flush=True)
    rows = [
        {
            "subnet": name,
            "start": way,
            "macs_over_whole": round(macs[name] / macs["nothing"], 3),
            "top1_percent": round(float(np.mean(values)), 1),
            "top1_least": round(min(values), 1),
            "top1_most": round(max(values), 1),
        }
        for (name, way), values in top1.items()
    ]
    source = asked.data.partition(":")[2].rpartition("/")[2].partition("-")[0] or asked.data
    write_table(
        f"zero_shot_{source}" if source != "digits" else "zero_shot",
        rows,
        f"{source}: plain ViT of width {HEADS * backbone.head_dim}, {DEPTH} layers, {HEADS} heads, "
        f"{backbone.num_patches} patches, trained on {len(data.train)} images for {asked.epochs} epochs without "
        f"augmentation; top-1 of untrained subnets on {len(data.search)} search images, mean, least and most of "
        f"{asked.seeds} seeds; calibrated on {len(images)} training images",
    )


if __name__ == "__main__":
    main()
