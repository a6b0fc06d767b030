"""Subnet evaluations per minute at 1,000 images, accuracy only and with latency, fp32 and bf16, one thread.

python benchmarks/evaluation_speed.py [--subnets 10]
"""

import argparse
import time

import numpy as np
import torch
from tables import write_table
from train_speed import synthetic

from nas.base import LATENCY
from nas.evaluation import EvaluatorSetup, SubnetEvaluator
from nas.model import Supernet
from nas.settings import EvaluateConfig
from nas.space import SearchSpace

NUM_IMAGES = 1000


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subnets", type=int, default=10)
    count = parser.parse_args().subnets
    rows = []
    for name, num_images in (("digits", NUM_IMAGES), ("cifar_small", NUM_IMAGES)):
        space = SearchSpace.from_yaml(f"search_spaces/{name}.yaml").with_num_classes(10)
        noise = synthetic(space.backbone.image_size, 10)
        repeats = -(-num_images // len(noise))
        images = noise.chosen(np.tile(np.arange(len(noise)), repeats)[:num_images])
        supernet = Supernet(space).eval()
        rng = np.random.default_rng(0)
        subnets = [space.sample_stratified(rng) for _ in range(count)]
        evaluators = {}
        for precision in ("fp32", "bf16"):
            for with_latency in (False, True):
                setup = EvaluatorSetup(
                    space=space,
                    config=EvaluateConfig(),
                    info=noise.info,
                    device="cpu",
                    precision=precision,
                    supernet_digest="random",
                    latencies=(LATENCY.name,) if with_latency else (),
                    reference_ms={LATENCY.name: 1.0},
                )
                evaluators[precision, with_latency] = SubnetEvaluator(setup, supernet, images)
        seconds: dict[tuple[str, bool], list[float]] = {key: [] for key in evaluators}
        for architecture in subnets:
            for key, evaluator in evaluators.items():
                started = time.perf_counter()
                evaluator.evaluate(architecture)
                seconds[key].append(time.perf_counter() - started)
        base = np.array(seconds["fp32", False])
        for (precision, with_latency), times in seconds.items():
            rows.append(
                {
                    "space": name,
                    "precision": precision,
                    "measures": "top-1, costs and latency" if with_latency else "top-1 and costs",
                    "evaluations_per_minute": round(60 / float(np.mean(times)), 1),
                    "time_over_fp32": round(float(np.median(np.array(times) / base)), 3),
                }
            )
    write_table(
        "evaluation_speed",
        rows,
        f"{NUM_IMAGES} images, {count} MACs-stratified subnets, interleaved, one process, one thread, random weights",
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
