"""Supernet training speed, and what weight sharing costs: against a plain timm ViT of the same shape, same step.

    python benchmarks/train_speed.py [--rounds 5]

Times are of single steps, interleaved round by round; the ratio is the median of the rounds' ratios.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import write_table
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional

from nas.arch import Architecture, cost
from nas.data import DataInfo, ImageSet
from nas.model import Supernet
from nas.settings import TrainConfig
from nas.space import SearchSpace
from nas.training import SupernetTrainer, autocast, drawn

BATCH = 128
RECIPES: dict[str, dict[str, Any]] = {"single path step": {}, "sandwich step": {"rule": "sandwich"}}


def synthetic(size: int, classes: int) -> ImageSet:
    """Noise images: speed does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4 * BATCH, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.arange(4 * BATCH) % classes
    info = DataInfo(
        class_names=tuple(map(str, range(classes))),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        flip_safe=True,
        hashes={"train": "noise"},
    )
    return ImageSet(images.numpy(), labels.numpy(), info)


def plain_step(space: SearchSpace, data: ImageSet, precision: str, threads: int) -> Callable[[int], None]:
    """One training step of timm's own ViT of the largest subnet's shape."""
    largest, backbone = space.largest(), space.backbone
    layer = largest.layers[0]
    assert largest.embed_dim == layer.num_heads * backbone.head_dim, "timm's ViT ties width to heads"
    model = VisionTransformer(
        img_size=backbone.image_size,
        patch_size=backbone.patch_size,
        num_classes=10,
        embed_dim=largest.embed_dim,
        depth=largest.depth,
        num_heads=layer.num_heads,
        mlp_ratio=layer.mlp_ratio,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(number: int) -> None:
        torch.set_num_threads(threads)
        chosen = slice(0, BATCH)
        optimizer.zero_grad(set_to_none=True)
        with autocast(torch.device("cpu"), precision):
            logits = model(data.normalized(chosen))
        functional.cross_entropy(logits.float(), torch.from_numpy(data.labels[chosen])).backward()
        optimizer.step()

    return step


def shared_step(space: SearchSpace, data: ImageSet, precision: str, threads: int) -> Callable[[int], None]:
    """The same step through the supernet: its largest subnet only."""
    supernet = Supernet(space).train()
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=1e-3)
    largest = space.largest()

    def step(number: int) -> None:
        torch.set_num_threads(threads)
        chosen = slice(0, BATCH)
        optimizer.zero_grad(set_to_none=True)
        with autocast(torch.device("cpu"), precision):
            logits = supernet(data.normalized(chosen), largest)
        functional.cross_entropy(logits.float(), torch.from_numpy(data.labels[chosen])).backward()
        optimizer.step()

    return step


def trainer_of(space: SearchSpace, data: ImageSet, precision: str, **recipe: Any) -> SupernetTrainer:
    """A training at its beginning, without the aids that only some layers and steps have."""
    return SupernetTrainer(
        Supernet(space),
        data,
        TrainConfig(batch_size=BATCH, epochs=100, static_guidance=0.0, **recipe),
        seed=0,
        device=torch.device("cpu"),
        precision=precision,
        directory=Path(tempfile.mkdtemp()),
    )


def whole_step(
    space: SearchSpace, data: ImageSet, precision: str, threads: int, recipe: dict[str, Any]
) -> Callable[[int], None]:
    """All that a training by a recipe does in a step: augmentation, passes, optimiser, average of weights."""
    trainer = trainer_of(space, data, precision, **recipe)

    def step(number: int) -> None:
        torch.set_num_threads(threads)
        trainer.train_step(number)

    return step


def drawn_at(space: SearchSpace, config: TrainConfig, number: int) -> Sequence[Architecture]:
    """The architectures of a step."""
    return drawn(space, config, seed=0, step=number, progress=1.0)


def macs_of(kind: str, space: SearchSpace, rounds: int) -> np.ndarray:
    """MACs of the forward passes of each round's step, per image of the batch."""
    if kind in ("plain timm ViT", "largest in supernet"):
        return np.full(rounds, float(cost.macs(space.largest(), space.backbone)))
    config = TrainConfig(**RECIPES[kind])
    each = [[cost.macs(a, space.backbone) for a in drawn_at(space, config, number)] for number in range(1, rounds + 1)]
    if kind == "sandwich step":
        return np.array([first + np.mean(others) for first, *others in each])
    return np.array([sum(macs) for macs in each], dtype=float)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    space = SearchSpace.from_yaml(Path(__file__).with_name("speed_space.yaml")).with_num_classes(10)
    data = synthetic(space.backbone.image_size, 10)
    kinds = {
        "plain timm ViT": plain_step,
        "largest in supernet": shared_step,
        **{kind: partial(whole_step, recipe=recipe) for kind, recipe in RECIPES.items()},
    }
    cells = [(precision, threads) for precision in ("fp32", "bf16") for threads in (1, 2)]
    steps = {(kind, *cell): make(space, data, *cell) for cell in cells for kind, make in kinds.items()}
    seconds: dict[tuple[str, str, int], list[float]] = {key: [] for key in steps}
    for number in range(rounds + 1):
        for key, step in steps.items():
            started = time.perf_counter()
            step(number)
            if number:  # the first is warm-up
                seconds[key].append(time.perf_counter() - started)
    macs = {kind: macs_of(kind, space, rounds) for kind in kinds}
    rows = []
    for precision, threads in cells:
        plain = np.array(seconds["plain timm ViT", precision, threads])
        reference = np.array(seconds["plain timm ViT", "fp32", threads])
        for kind in kinds:
            times = np.array(seconds[kind, precision, threads])
            ratio = float(np.median(times / plain))
            relative_macs = macs[kind] / macs["plain timm ViT"]
            equal = float(np.median(times / plain / relative_macs))
            rows.append(
                {
                    "step": kind,
                    "precision": precision,
                    "threads": threads,
                    "images_per_second": round(BATCH / float(np.median(times)), 1),
                    "time_over_plain": round(ratio, 3),
                    "macs_over_plain": round(float(relative_macs.mean()), 3),
                    "time_over_plain_of_equal_macs": round(equal, 3),
                    "time_over_plain_fp32": round(float(np.median(times / reference)), 3),
                }
            )
    write_table(
        "train_speed",
        rows,
        f"speed_space.yaml, largest of {macs['plain timm ViT'][0] / 1e6:.0f} MMACs per image, batch {BATCH}, {rounds} "
        "interleaved rounds, medians; plain: forward and backward pass and AdamW, no augmentation; a single path "
        "step is a whole step of the default recipe: one random subnet, another in every round; a sandwich step: the "
        "largest on the batch, two others on a half each",
    )


if __name__ == "__main__":
    main()
