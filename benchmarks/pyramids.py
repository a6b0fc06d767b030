"""PVT v2 of this program against timm's own, and what operators save there, in MACs, parameters and time.

    python benchmarks/pyramids.py [--rounds 7] [--device cpu]

timm's pvt_v2_b0 and b1 at 224 px, the same networks made of components with timm's weights, and these with operators
where they have a place; batch 1 and 16, fp32, one thread. In a round every model runs once; a ratio is the median of
the rounds' ratios to timm's model.
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import timm
import torch
from tables import write_table
from torch import nn

from nas.arch import Architecture, Backbone, cost
from nas.initial import from_pvt, pvt_facts, pvt_subnet
from nas.model import Subnet

NAMES = ("pvt_v2_b0", "pvt_v2_b1")
BATCHES = (1, 16)


def variants(plain: Architecture) -> dict[str, Architecture]:
    """Networks by what they change of the plain pyramid."""

    def of(**genes: object) -> Architecture:
        return replace(plain, layers=tuple(replace(layer, **genes) for layer in plain.layers))

    halves = {"hallucination_ratio": 0.5, "hallucination": "copy"}
    shared = [replace(layer, attention="shared") if i % 2 else layer for i, layer in enumerate(plain.layers)]
    static = [replace(layer, attention="static") if i > 3 else layer for i, layer in enumerate(plain.layers)]
    return {
        "as timm's": plain,
        "hmhsa copy": of(**halves),
        "cffn 1/2": of(ffn_rank=0.5),
        "hmhsa copy + cffn 1/2": of(**halves, ffn_rank=0.5),
        "shared every 2nd": replace(plain, layers=tuple(shared)),
        "static from stage 3": replace(plain, layers=tuple(static)),
    }


def timed(model: nn.Module, images: torch.Tensor) -> float:
    """Seconds of a forward pass, after an untimed one."""
    model(images)
    begin = time.perf_counter()
    model(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin


@torch.inference_mode()
def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in NAMES:
        theirs = timm.create_model(name).eval().to(asked.device)
        weights = from_pvt(theirs.state_dict())
        fixed = Backbone(image_size=224, patch_size=4)
        fixed = replace(fixed, **pvt_facts(theirs.state_dict(), fixed))
        same = pvt_subnet(weights, fixed)
        found = variants(same.architecture)
        models: dict[str, nn.Module] = {}
        for variant, architecture in found.items():
            own = same if architecture == same.architecture else Subnet(fixed, architecture)
            if own is not same:
                own.init_weights()
            models[variant] = own.eval().to(asked.device)
        for batch in BATCHES:
            images = torch.randn(batch, 3, 224, 224, device=asked.device)
            ratios: dict[str, list[float]] = {variant: [] for variant in models}
            clock = []
            for _ in range(asked.rounds):
                clock.append(timed(theirs, images))
                for variant, model in models.items():
                    ratios[variant].append(timed(model, images) / clock[-1])
            for variant, values in ratios.items():
                low, middle, high = np.percentile(values, [25, 50, 75])
                rows.append(
                    {
                        "network": name,
                        "variant": variant,
                        "batch": batch,
                        "macs": round(cost.macs(found[variant], fixed) / cost.macs(same.architecture, fixed), 3),
                        "params": round(cost.params(found[variant], fixed) / cost.params(same.architecture, fixed), 3),
                        "time_over_timm": round(float(middle), 3),
                        "time_q1": round(float(low), 3),
                        "time_q3": round(float(high), 3),
                        "timm_ms": round(1000 * float(np.median(clock)), 1),
                    }
                )
    text = "PVT v2 at 224 px, fp32, one thread; time: of a batch, over timm's own network in the same round, median"
    write_table("pyramids", rows, f"{text} and quartiles of {asked.rounds} rounds; macs and params: over the plain one")


if __name__ == "__main__":
    main()
