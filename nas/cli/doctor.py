"""What `doctor` says: versions, devices, self-tests of what the results rest on, and what is missing."""

import os
import platform
import re
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.report import Table

PACKAGES = (
    "torch", "torchvision", "timm", "optuna", "ray", "numpy", "pandas", "scikit-learn", "moocore", "onnx",
    "onnxscript", "onnxruntime", "safetensors",
)  # fmt: skip
LEAST_FREE_GB = 2.0
MOST_INT8_ERROR = 0.2  # of the largest logit, of a network with random weights


def diagnose() -> dict[str, Any]:
    """`healthy`, `versions` by package, and `checks`: name, whether it passed, and what was found."""
    versions = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    checks = [
        _checked("torch and torchvision fit together", _torchvision),
        _checked("FLOP counter equals arithmetic", _flop_counter),
        _checked("supernet equals extracted subnet", _extraction),
        _checked("device", _device),
        _checked("bf16 in hardware", _bf16),
        _checked("int8", _int8),
        _checked("cores", _cores),
        _checked("disk", _disk),
    ]
    missing = [name for name, found in versions.items() if found is None]
    found = f"{', '.join(missing)} missing" if missing else "all there"
    checks.append({"check": "packages", "passed": not missing, "found": found})
    healthy = all(check["passed"] for check in checks)
    return {"schema_version": 1, "healthy": healthy, "versions": versions, "checks": checks}


def diagnosis_table(findings: dict[str, Any]) -> "Table":
    """`diagnose` as a table for people."""
    from nas.report import Column, Markup, Table

    signs = {True: "ok", False: Markup("[bold red]WRONG[/]")}
    checks = [(signs[check["passed"]], check["check"], check["found"]) for check in findings["checks"]]
    return Table(
        title="healthy" if findings["healthy"] else "something is wrong",
        columns=[Column(wraps=True)] * 3,
        rows=[*checks, (), *(("", name, found or "missing") for name, found in findings["versions"].items())],
        box="HEAVY_HEAD",
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _checked(name: str, check: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"check": name, "passed": True, "found": check()}
    except Exception as error:  # noqa: BLE001 - a diagnosis reports whatever is wrong
        return {"check": name, "passed": False, "found": f"{type(error).__name__}: {error}"}


def _torchvision() -> str:
    import torch
    import torchvision  # type: ignore[import-untyped]

    boxes, scores = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0])
    torchvision.ops.nms(boxes, scores, 0.5)  # a torchvision built for another torch has no compiled operators
    return f"torch {torch.__version__}, torchvision {torchvision.__version__}"


def _flop_counter() -> str:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from nas.arch import cost
    from nas.model import Subnet

    space = _small_space()
    architecture = space.largest()
    with torch.device("meta"):
        subnet, images = Subnet(space.backbone, architecture), torch.empty(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        subnet(images)
    counted, expected = counter.get_total_flops(), 2 * cost.macs(architecture, space.backbone)
    if counted != expected:
        raise ArithmeticError(f"torch counts {counted} FLOPs, arithmetic says {expected}")
    return f"{counted:,} FLOPs = 2 x {expected // 2:,} MACs"


def _extraction() -> str:
    import numpy as np
    import torch

    from nas.model import Supernet

    space = _small_space()
    supernet, rng = Supernet(space).eval(), np.random.default_rng(0)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for _ in range(5):
            architecture = space.sample(rng)
            if not torch.equal(supernet(images, architecture), supernet.extract(architecture)(images)):
                raise ArithmeticError(f"they differ for {architecture.to_json()}")
    return "bit for bit, 5 random architectures"


def _small_space() -> Any:
    from nas.space import parse_space

    text = """
name: doctor
backbone: {image_size: 32, patch_size: 8, num_classes: 10, head_dim: 8}
embed_dim: [32, 48]
depth: [2, 3]
layers:
  {num_tokens: [16, 4], reducer: [pool, conv_pool, glad], attention: [dynamic, static, shared, linear], num_heads: 2,
   hallucination_ratio: [0, 0.5], hallucination: [copy, mix, mix_conv], ffn_rank: [0.5, 1]}
"""
    return parse_space(text, "doctor")


def _device() -> str:
    from nas.latency import device_name, resolve_device

    return device_name(resolve_device("auto").type)


def _bf16() -> str:
    import sys

    from nas.latency import resolve_device, resolve_precision

    has_it = resolve_precision("auto", resolve_device("auto"), sys.maxsize) == "bf16"
    return "yes" if has_it else "no: training and evaluation take fp32"


def _int8() -> str:
    import torch

    from nas.latency import prepare, random_subnet
    from nas.settings import parse_target

    space = _small_space()
    subnet = random_subnet(space.backbone, space.smallest())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = torch.as_tensor(prepare(parse_target("onnxruntime-cpu:precision=int8"), subnet, images)())
    worst = float((logits - subnet(images)).abs().max() / subnet(images).abs().max())
    if not worst < MOST_INT8_ERROR:
        raise ArithmeticError(f"logits are off by {100 * worst:.0f} % of the largest")
    instructions = Path("/proc/cpuinfo")
    if not instructions.is_file():
        return "onnxruntime computes it"
    known = re.search(r"\b(amx_int8|avx512_vnni|avx_vnni|asimddp)\b", instructions.read_text(encoding="utf-8"))
    if known is None:
        return "onnxruntime computes it; this processor has no instructions for it, so it may be no faster than fp32"
    return f"onnxruntime computes it, the processor has {known[1]}"


def _cores() -> str:
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    busy = "; busy: latency is measured as a ratio to a reference" if load > cores / 2 else ""
    return f"{cores}, load average {load:.1f}{busy}"


def _disk() -> str:
    free = shutil.disk_usage(".").free / 1e9
    if free < LEAST_FREE_GB:
        raise OSError(f"{free:.1f} GB free; a run needs up to {LEAST_FREE_GB:.0f} GB")
    return f"{free:.0f} GB free"
