"""What eight bits cost and save: DeiT-Ti's time and size, and the accuracy of every operator.

    python benchmarks/int8.py --data parquet:fashion-mnist-train.parquet,fashion-mnist-test.parquet [--seconds 120]

DeiT-Ti's shape has random weights: time and size do not hang on them. The others are small ViTs of one operator each,
of one supernet that trains them in turn for so many seconds of this process's time; they are quantised on training
images and judged by test images. Each is quantised as it ships and in other ways. Times are over the float file's, in
turn with it, one thread.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tables import write_table
from torch import Tensor
from torch.nn import functional

from nas.arch import Architecture, Backbone, LayerChoice, Rules
from nas.data import ImageSet, load_images
from nas.evaluation import count_correct, paired_loss, top1_percent
from nas.latency import (
    CALIBRATION_IMAGES,
    CALIBRATION_STEP,
    default_batch,
    file_ratio,
    load_onnx,
    own_cores,
    random_subnet,
    trace,
    write_int8,
    write_onnx,
)
from nas.model import Subnet, Supernet
from nas.settings import DataConfig, Target
from nas.space import LayerDomain, SearchSpace

DEIT = Backbone(image_size=224, patch_size=16, num_classes=1000, head_dim=64, class_token=True)
SMALL = Backbone(image_size=32, patch_size=8, num_classes=10, head_dim=12)
DEPTH = 6
BATCH, LR, WEIGHT_DECAY, WARM_UP = 128, 2e-3, 0.05, 0.1
ONE_THREAD = Target(runtime="onnxruntime-cpu")


def networks() -> dict[str, Architecture]:
    """A plain ViT at 32 px, and what has one operator beyond it."""
    plain, every = LayerChoice(num_tokens=16, num_heads=4, mlp_ratio=4), range(DEPTH)

    def of(**genes: dict[int, Any]) -> Architecture:
        layers = [
            replace(plain, **{gene: values[i] for gene, values in genes.items() if i in values}) for i in range(DEPTH)
        ]
        return Architecture(embed_dim=64, layers=tuple(layers))

    def derived(kind: str) -> Architecture:
        return of(hallucination_ratio=dict.fromkeys(every, 0.5), hallucination=dict.fromkeys(every, kind))

    def reduced(reducer: str) -> Architecture:
        return of(num_tokens={2: 9, 3: 9, 4: 4, 5: 4}, reducer={2: reducer, 4: reducer})

    return {
        "plain (dynamic)": of(),
        "static": of(attention=dict.fromkeys(range(3), "static")),
        "shared": of(attention=dict.fromkeys(range(1, DEPTH, 2), "shared")),
        "linear": of(attention=dict.fromkeys(every, "linear")),
        **{f"hallucination {kind}": derived(kind) for kind in ("copy", "mix", "mix_conv")},
        **{reducer: reduced(reducer) for reducer in ("pool", "conv_pool", "glad")},
        "low rank 1/2": of(ffn_rank=dict.fromkeys(every, 0.5)),
    }


WAYS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "products of two activations too": {"nodes_to_exclude": []},
    "results rounded too": {"nodes_to_exclude": [], "extra_options": {}},
    "one scale a tensor of weights": {"per_channel": False},
}
"""Options of `write_int8`; small networks are quantised in the first two ways."""


def space_of(architectures: Iterable[Architecture]) -> SearchSpace:
    """One that holds the small networks."""
    genes: dict[str, Any] = {
        "num_tokens": (16, 9, 4),
        "reducer": ("pool", "conv_pool", "glad"),
        "attention": ("dynamic", "static", "shared", "linear"),
        "hallucination_ratio": (0.0, 0.5),
        "hallucination": ("copy", "mix", "mix_conv"),
        "num_heads": (4,),
        "ffn_rank": (0.5, 1.0),
        "mlp_ratio": (4.0,),
    }
    first = {**genes, "num_tokens": (16,), "attention": ("dynamic", "static", "linear")}
    layers = (LayerDomain(**first), *(LayerDomain(**genes) for _ in range(DEPTH - 1)))
    space = SearchSpace(
        name="int8",
        backbone=SMALL,
        embed_dim=(64,),
        depth=(DEPTH,),
        layers=layers,
        rules=Rules(max_shared=2, max_reductions=2),
    )
    assert not any(map(space.why_not, architectures)), "all are in it"
    return space


def trained(images: ImageSet, seconds: float, seed: int) -> tuple[Supernet, int]:
    """The supernet after so many seconds of this process's time, and the number of steps: a network each, in turn."""
    architectures = list(networks().values())
    supernet = Supernet(space_of(architectures), seed=seed)
    optimizer = torch.optim.AdamW(supernet.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    rng, began, step, spent = np.random.default_rng(seed), time.process_time(), 0, 0.0
    while spent < seconds:
        share = spent / seconds
        for group in optimizer.param_groups:
            group["lr"] = LR * min(share / WARM_UP + 0.02, 0.5 * (1 + np.cos(np.pi * share)))
        chosen = rng.integers(len(images), size=BATCH)
        logits = supernet(images.normalized(chosen), architectures[step % len(architectures)])
        loss = functional.cross_entropy(logits, torch.from_numpy(images.labels[chosen]).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step, spent = step + 1, time.process_time() - began
    return supernet.eval().requires_grad_(False), step


def batches(images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """As many as calibrate."""
    return (images[start : start + CALIBRATION_STEP] for start in range(0, len(images), CALIBRATION_STEP))


def rows_of(
    name: str,
    subnet: Subnet,
    calibration: NDArray[np.float32],
    rounds: int,
    right_of: Callable[[Callable[[Tensor], Tensor]], NDArray[np.bool_]] | None = None,
) -> Iterator[dict[str, Any]]:
    """A row a way of quantising; `right_of` tells which test images a trained network gets right."""
    size = subnet.backbone.image_size
    images = np.random.default_rng(0).standard_normal((default_batch(size), 3, size, size)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        real, small = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        write_onnx(trace(subnet), real)
        before = None if right_of is None else right_of(load_onnx(real))
        for way, options in list(WAYS.items())[: None if right_of is None else 2]:
            write_int8(real, small, batches(calibration), **options)
            with own_cores(ONE_THREAD):
                low, ratio, high = file_ratio(small, real, images, rounds)
            sizes = [file.stat().st_size for file in (real, small)]
            row = {
                "network": name,
                "way": way,
                "batch": len(images),
                "time_over_float": round(ratio, 3),
                "quartiles": f"{low:.3f} {high:.3f}",
                "faster": round(1 / ratio, 2),
                "float_mb": round(sizes[0] / 1e6, 2),
                "int8_mb": round(sizes[1] / 1e6, 2),
                "smaller": round(sizes[0] / sizes[1], 2),
                **dict.fromkeys(("images", "top1_float", "top1_int8", "lost_points", "lost_ci"), ""),
            }
            if before is not None and right_of is not None:
                after = right_of(load_onnx(small))
                lost, (least, most) = paired_loss(before, after)
                row |= {
                    "images": len(before),
                    "top1_float": round(top1_percent(before), 2),
                    "top1_int8": round(top1_percent(after), 2),
                    "lost_points": round(lost, 2),
                    "lost_ci": f"{least:.2f} {most:.2f}",
                }
            print(row, flush=True)
            yield row


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", default="digits", help="images with a test split, as `run --data`")
    parser.add_argument("--seconds", type=float, default=120, help="of training")
    parser.add_argument("--images", type=int, default=4000, help="of the test split, at most")
    parser.add_argument("--rounds", type=int, default=20, help="pairs of timings, each file in turn first")
    parser.add_argument("--networks", nargs="+", default=list(networks()), choices=list(networks()))
    given = parser.parse_args()
    torch.set_num_threads(1)
    layer = LayerChoice(num_tokens=196, num_heads=3, mlp_ratio=4)
    deit = random_subnet(DEIT, Architecture(embed_dim=192, layers=(layer,) * 12))
    noise = np.random.default_rng(1).standard_normal((8, 3, 224, 224)).astype(np.float32)
    rows = list(rows_of("DeiT-Ti's shape, random weights", deit, noise, given.rounds))
    data, test = load_images(DataConfig(spec=given.data), SMALL.image_size, 0)
    assert test is not None, "images with a test split"
    tested = test.open().part(0, given.images)
    numbers = np.linspace(0, len(data.train) - 1, CALIBRATION_IMAGES).astype(int)
    calibration = data.train.normalized(numbers).numpy()

    def right_of(run: Callable[[Tensor], Tensor]) -> NDArray[np.bool_]:
        return count_correct(run, tested, batch_size=100, device=torch.device("cpu"), precision="fp32")

    supernet, steps = trained(data.train, given.seconds, 0)
    print(f"{steps} steps", flush=True)
    for name in given.networks:
        rows += rows_of(name, supernet.extract(networks()[name]), calibration, given.rounds, right_of)
    files = " ".join(Path(part).name for part in given.data.split(","))
    write_table(
        "int8",
        rows,
        f"ONNX files in eight bits over float ones, {given.rounds} pairs of timings, one thread; small networks at 32 "
        f"px, of one supernet that trained them in turn for {given.seconds:g} s of processor time ({steps} steps) on "
        f"{files}; "
        f"{CALIBRATION_IMAGES} training images calibrate, test images judge",
    )


if __name__ == "__main__":
    main()
