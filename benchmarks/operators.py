"""What every operator saves in MACs and parameters, and in time over timm's own ViT of the same shape.

    python benchmarks/operators.py [--rounds 7] [--large-rounds 3] [--device cpu]

DeiT-Ti and DeiT-S at 224 px and a ViT of 192 channels at 32 px, each mechanism at its paper's setting, batch 1
and 64, fp32 and bf16. In a round every model runs once, short ones after an untimed pass of their own; a ratio is the
median of the rounds' ratios to timm's model. `--large-rounds` is for batch 64 at 224 px.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tables import write_table
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from nas.arch import Architecture, Backbone, LayerChoice, cost
from nas.model import Subnet

SHAPES = {
    "DeiT-Ti 224": (Backbone(image_size=224, patch_size=16), 192),
    "DeiT-S 224": (Backbone(image_size=224, patch_size=16), 384),
    "ViT 32": (Backbone(image_size=32, patch_size=4, num_classes=10), 192),
}
DEPTH = 12
LONG_S = 0.5
PUBLISHED = {  # share of the MACs of DeiT-Ti and DeiT-S (METHODS 1.4, 2.2, 3.4, 4.3)
    "hmhsa mix_conv": ("-6.7 %", "-9.3 %"),
    "cffn 1/2": ("-10.4 %", "-11.4 %"),
    "hmhsa mix_conv + cffn 1/2": ("-17.1 %", "-20.6 %"),
    "static first 4": ("-7.0 %", "-6.3 %"),
    "static all": ("-21.0 %", "-19.0 %"),
    "shared every 2nd": ("-10.5 %", "-9.5 %"),
    "shared 2 of 3": ("-14.0 %", "-12.7 %"),
    "linear": ("-9.3 %", "-5.1 %"),
}

COPIES = "of 3 heads only one is derived: the saved products are small, what derives the map is passes over memory"
REMARKS = {  # why an operator that saves MACs may not save time on a CPU
    "hmhsa copy": f"{COPIES}; two fused calls instead of one",
    "hmhsa mix": f"{COPIES}; its maps are written and read, where plain fp32 attention is fused",
    "hmhsa mix_conv": f"{COPIES}; the 3x3 copies every map into the layout of its kernel and back",
    "linear": "norms, scalings and a heads-first copy of all tokens cost what the map products save; at 65 tokens "
    "there is nothing to save, and the 3x3 has a fixed cost",
}


def variants(backbone: Backbone, width: int) -> dict[str, Architecture]:
    """Architectures by what they change of the plain ViT."""
    patches = backbone.num_patches
    plain = LayerChoice(num_tokens=patches, num_heads=width // backbone.head_dim, mlp_ratio=4)
    every = range(DEPTH)
    half, quarter = patches // 2, patches // 4

    def of(**genes: dict[int, Any]) -> Architecture:
        layers = [
            replace(plain, **{gene: values[i] for gene, values in genes.items() if i in values}) for i in range(DEPTH)
        ]
        return Architecture(embed_dim=width, layers=tuple(layers))

    def all_over(value: Any) -> dict[int, Any]:
        return dict.fromkeys(every, value)

    def hmhsa(variant: str) -> dict[str, dict[int, Any]]:
        return {"hallucination_ratio": all_over(0.5), "hallucination": all_over(variant)}

    def pyramid(reducer: str, first: int, second: int, *counts: int) -> dict[str, dict[int, Any]]:
        tokens = {i: counts[1] if i >= second else counts[0] for i in range(first, DEPTH)}
        reducers = {i: reducer for i in (first, second) if tokens[i] < (tokens.get(i - 1) or patches)}
        return {"num_tokens": tokens, "reducer": reducers}

    pooled = pyramid("pool", 4, 8, {196: 100, 64: 36}[patches], {196: 49, 64: 16}[patches])
    static4 = dict.fromkeys(range(4), "static")
    return {
        "plain": of(),
        "hmhsa copy": of(**hmhsa("copy")),
        "hmhsa mix": of(**hmhsa("mix")),
        "hmhsa mix_conv": of(**hmhsa("mix_conv")),
        "cffn 1/2": of(ffn_rank=all_over(0.5)),
        "cffn 1/4": of(ffn_rank=all_over(0.25)),
        "hmhsa copy + cffn 1/2": of(**hmhsa("copy"), ffn_rank=all_over(0.5)),
        "hmhsa mix_conv + cffn 1/2": of(**hmhsa("mix_conv"), ffn_rank=all_over(0.5)),
        "static first 4": of(attention=static4),
        "static all": of(attention=all_over("static")),
        "shared every 2nd": of(attention=dict.fromkeys(range(1, DEPTH, 2), "shared")),
        "shared 2 of 3": of(attention={i: "shared" for i in every if i % 3}),
        "linear": of(attention=all_over("linear")),
        "pool at 4, 8": of(**pooled),
        "glad at 4, 8": of(**pyramid("glad", 4, 8, half, quarter)),
        "glad at 6, 9": of(**pyramid("glad", 6, 9, half, quarter)),
        "static first 4 + glad at 4, 8": of(attention=static4, **pyramid("glad", 4, 8, half, quarter)),
        "static first 4 + glad to 1/4 at 4": of(attention=static4, **pyramid("glad", 4, 8, quarter, quarter)),
        "static first 2 + glad to 1/4 at 2": of(
            attention=dict.fromkeys(range(2), "static"), **pyramid("glad", 2, 8, quarter, quarter)
        ),
        "all together": of(
            attention=static4 | {5: "shared", 9: "shared"},
            **pyramid("glad", 4, 8, half, quarter),
            hallucination_ratio=dict.fromkeys((6, 7, 10, 11), 0.5),
            ffn_rank=all_over(0.5),
        ),
    }


def timm_vit(backbone: Backbone, width: int) -> nn.Module:
    """The model of timm with the plain shape."""
    return VisionTransformer(
        img_size=backbone.image_size,
        patch_size=backbone.patch_size,
        num_classes=backbone.num_classes,
        embed_dim=width,
        depth=DEPTH,
        num_heads=width // backbone.head_dim,
    )


def ratios(
    models: dict[str, nn.Module], images: torch.Tensor, rounds: int, on_round: Callable[[int], None]
) -> dict[str, float]:
    """Median time of every model over that of the first, from interleaved rounds."""
    names = list(models)
    seconds = np.empty((rounds, len(names)))

    def run(model: nn.Module) -> float:
        synchronise(images.device)
        started = time.perf_counter()
        model(images)
        synchronise(images.device)
        return time.perf_counter() - started

    with torch.inference_mode():
        for r in range(rounds):
            for m in np.random.default_rng(r).permutation(len(names)):
                model = models[names[m]]
                seconds[r, m] = run(model)
                if seconds[r, m] < LONG_S:  # short enough for the model before to matter: that was the warm-up
                    seconds[r, m] = min(run(model) for _ in range(3))
            on_round(r + 1)
    return dict(zip(names, np.median(seconds / seconds[:, :1], axis=0).tolist(), strict=True))


def synchronise(device: torch.device) -> None:
    """Wait for a card."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--large-rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device(asked.device)
    rows: list[dict[str, Any]] = []
    for shape, (backbone, width) in SHAPES.items():
        found = variants(backbone, width)
        plain_macs, plain_params = (count(found["plain"], backbone) for count in (cost.macs, cost.params))
        models: dict[str, nn.Module] = {"timm": timm_vit(backbone, width).eval()}
        for name, architecture in found.items():
            subnet = Subnet(backbone, architecture)
            subnet.init_weights()
            models[name] = subnet.eval()
        times: dict[tuple[str, int], dict[str, float]] = {}
        for precision in ("fp32", "bf16"):
            dtype = torch.float32 if precision == "fp32" else torch.bfloat16
            models = {name: model.to(device, dtype) for name, model in models.items()}
            for batch in (1, 64):
                images = torch.randn(batch, 3, backbone.image_size, backbone.image_size).to(device, dtype)
                rounds = asked.large_rounds if batch == 64 and backbone.image_size == 224 else asked.rounds
                cell = f"{shape} {precision} batch {batch}"
                times[precision, batch] = ratios(
                    models,
                    images,
                    rounds,
                    lambda done, cell=cell, rounds=rounds: print(f"{cell}: round {done}/{rounds}", flush=True),
                )
        for name, architecture in found.items():
            macs, params = cost.macs(architecture, backbone), cost.params(architecture, backbone)
            published = (*PUBLISHED.get(name, ("", "")), "")
            rows.append(
                {
                    "shape": shape,
                    "variant": name,
                    "macs_m": round(macs / 1e6, 1),
                    "macs_change": f"{100 * (macs / plain_macs - 1):+.1f} %",
                    "macs_change_methods": {"DeiT-Ti 224": published[0], "DeiT-S 224": published[1]}.get(shape, ""),
                    "params_m": round(params / 1e6, 2),
                    "params_change": f"{100 * (params / plain_params - 1):+.1f} %",
                    **{
                        f"time_{precision}_b{batch}": round(cells[name], 3)
                        for (precision, batch), cells in times.items()
                    },
                    "remark": REMARKS.get(name, ""),
                }
            )
    where = "1 thread of a CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
    write_table(
        "operators" if device.type == "cpu" else "operators_cuda",
        rows,
        f"time_*: over timm's VisionTransformer of the plain shape, {where}, {asked.rounds} interleaved rounds, "
        f"{asked.large_rounds} at 224 px and batch 64, medians; half of the heads hallucinated (of 3: 1); bf16: "
        "weights and images",
    )


if __name__ == "__main__":
    main()
