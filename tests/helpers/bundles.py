"""Networks with every operator, their rows of the table, and how tests export and load them."""

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import factories
import numpy as np
import torch
from odd_images import exif
from PIL import Image
from torch import nn

from nas.arch import cost
from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.backbone import Backbone
from nas.bundle.bundle import BundleOptions, ExportReport
from nas.bundle.export import export_bundle
from nas.data.images import DataInfo
from nas.model.families.vit import Subnet

ROOT = Path(__file__).parents[2]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CLASS_TOKEN = Backbone(image_size=32, patch_size=4, num_classes=10, head_dim=8)
MEAN_POOL = replace(CLASS_TOKEN, class_token=False, num_classes=7)


def layer(num_tokens: int, **changes: Any) -> LayerChoice:
    return LayerChoice(**{"num_tokens": num_tokens, "num_heads": 2, "mlp_ratio": 2, **changes})


EVERY_OPERATOR = Architecture(
    embed_dim=24,
    layers=(
        layer(64, attention="static"),
        layer(64, hallucination_ratio=0.5, hallucination="copy"),
        layer(64, attention="shared", ffn_rank=0.5),
        layer(64, attention="linear"),
        layer(64, hallucination_ratio=0.5, hallucination="mix", ffn_rank=0.25),
        layer(64, attention="shared", hallucination_ratio=0.5, hallucination="mix_conv"),
        layer(36, reducer="conv_pool", hallucination_ratio=0.5, hallucination="mix_conv"),
        layer(36, attention="shared"),
        layer(25, reducer="pool", num_heads=3, hallucination_ratio=0.7),
        layer(14, reducer="glad", attention="linear"),
        layer(14),
    ),
)
"""64 -> 36 -> 25 -> 14 tokens: sides 8 -> 6 -> 5, of which none divides the one before, then none at all."""

OPERATORS_MEAN_POOLED = Architecture(
    embed_dim=16,
    layers=(
        layer(64),
        layer(49, reducer="pool", hallucination_ratio=0.5),
        layer(49, attention="linear", ffn_rank=0.5),
        layer(9, reducer="conv_pool", num_heads=3, hallucination_ratio=0.4, hallucination="mix_conv"),
        layer(9, attention="static", mlp_ratio=1),
    ),
)


def subnet_of(architecture: Architecture, backbone: Backbone, seed: int = 0) -> Subnet:
    """Random weights everywhere, so that no operator is at a start value that hides it."""
    subnet = Subnet(backbone, architecture)
    generator = torch.Generator().manual_seed(seed)
    for parameter in subnet.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return subnet.eval()


def point_of(subnet: Subnet) -> dict[str, Any]:
    """A row of the table for a network."""
    architecture, backbone = subnet.architecture, subnet.backbone
    macs, params = cost.macs(architecture, backbone), cost.params(architecture, backbone)
    return {
        "digest": architecture.digest,
        "top1": 91.25,
        "top1_ci": [88.0, 93.5],
        "macs": macs,
        "flops": 2 * macs,
        "params": params,
        "latency_ms": 1.5,
        "latency_ci_ms": [1.4, 1.6],
        "split": "search",
        "conditions": factories.conditions().to_dict(),
        "architecture": architecture.to_dict(),
    }


def export(subnet: Subnet, directory: Path, **changes: Any) -> ExportReport:
    arguments: dict[str, Any] = {
        "point": point_of(subnet),
        "provenance": {"run": "test-1", "seed": 3, "commands": ["python search.py run tiny.yaml"]},
    }
    of_images = {
        "mean": MEAN,
        "std": STD,
        "class_names": [f"class {i}" for i in range(subnet.num_classes)],
        "flip_safe": True,
        "hashes": {},
        "crop_pct": 1.0,
    }
    info = DataInfo(**{key: changes.pop(key, value) for key, value in of_images.items()})
    names = [field.name for field in fields(BundleOptions)]
    options = BundleOptions(**{"formats": ("timm",)} | {name: changes.pop(name) for name in names if name in changes})
    return export_bundle(subnet, directory, info=info, options=options, **{**arguments, **changes})


def images_for(backbone: Backbone, batch: int = 3) -> torch.Tensor:
    shape = (batch, backbone.in_chans, backbone.image_size, backbone.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(99))


def logits_of(model: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images)


def run_python(code: str, cwd: Path, *options: str, path: Path | None = None) -> str:
    """Standard output of a fresh interpreter, in which warnings are errors."""
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **({"PYTHONPATH": str(path)} if path else {})}
    command = [sys.executable, "-W", "error", *options, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def small_subnet() -> Subnet:
    """One plain layer on 16 x 16 colour images."""
    return subnet_of(factories.plain(depth=1), factories.backbone(in_chans=3))


def snippets(card: str) -> list[str]:
    """The Python programs on a model card, in its order."""
    return re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)


def draw_image(path: Path, mode: str = "RGB", *, sideways: bool = False) -> Image.Image:
    """Write and return a picture, not square, with an edge in every place; `sideways` stores it as phones do."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
    image = Image.fromarray(pixels).convert(mode).resize((77, 61), Image.Resampling.NEAREST)
    if sideways:
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif(6))
    else:
        image.save(path)
    return image
