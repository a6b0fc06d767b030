"""Where and how latency is measured: a runtime, its batch, threads and precision; as text and as a value.

The image size is the search space's: position embeddings and static maps fit no other.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from nas.base import LATENCIES, ConfigError, command_line
from nas.settings.own import OwnTarget, is_own

Runtime = Literal[
    "torch-cpu",
    "torch-cpu-packed",
    "torch-cpu-compiled",
    "onnxruntime-cpu",
    "openvino-cpu",
    "torch-cuda",
    "torch-cuda-graph",
]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
PRECISIONS = ("fp32", "bf16", "int8")
OF_ONNXRUNTIME = ("fp32", "int8")
"""Its precisions: it has no bf16 kernels for a CPU; all other runtimes compute in fp32 and bf16."""

NEEDED = {"onnxruntime": "onnxruntime", "openvino": "openvino"}
"""Packages, by how the runtimes that need them begin."""

OPTIONS = ("batch", "threads", "precision")
MOST = {"batch": 1_000_000, "threads": 1024}
OURS = "this profile"
"""What a profile is called among the predictors that it is compared with."""
PROFILE = "profile:"
"""Prefix of a target that is answered from a file: `profile:FILE`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where and how latency is measured.

    Attributes:
        runtime: What runs the model: `torch-cpu` is eager; `-packed` has linear layers with oneDNN's packed
            weights; `-compiled` is `torch.compile` with frozen weights; `-graph` replays a CUDA graph.
        batch: Images per forward pass; None: chosen by the image size.
        threads: Of the runtime.
        own: The object of a Python program that `runtime` names; it does not say what a target is.
        precision: Of the arithmetic, `fp32` or `bf16`; `int8`: of weights and of what they are multiplied with.
    """

    runtime: str
    batch: int | None = None
    threads: int = 1
    precision: str = "fp32"
    own: OwnTarget | None = field(default=None, compare=False, repr=False)

    @property
    def is_cuda(self) -> bool:
        """Whether it needs a CUDA device."""
        return self.runtime.startswith("torch-cuda")

    @property
    def kind(self) -> str:
        """Runtime and precision: what `Conditions.target` says, beside batch and threads."""
        return self.runtime if self.precision == "fp32" else f"{self.runtime} {self.precision}"

    def __str__(self) -> str:
        """As it is written on the command line, without what has its default."""
        default = Target(runtime=self.runtime)
        values = [(name, getattr(self, name)) for name in OPTIONS]
        given = ",".join(f"{name}={value}" for name, value in values if value != getattr(default, name))
        return f"{self.runtime}:{given}" if given else self.runtime


def parse_target(text: str) -> Target:
    """Read `runtime:batch=N,threads=N,precision=fp32|bf16|int8`; a ConfigError has every problem of the text."""
    runtime, _, rest = text.strip().partition(":")
    problems = []
    if runtime not in RUNTIMES and not is_own(runtime):
        problems.append(f"unknown runtime {runtime!r}{_guess(runtime, RUNTIMES)} ({_runtimes_here()})")
    values: dict[str, str] = {}
    for part in rest.split(",") if rest else []:
        name, separator, value = (piece.strip() for piece in part.partition("="))
        if not separator or name not in OPTIONS:
            problems.append(f"{part.strip()!r} is not one of batch=N, threads=N, precision=fp32|bf16|int8")
        elif name in values:
            problems.append(f"{name} is given twice")
        else:
            values[name] = value
    for name in ("batch", "threads"):
        if name in values and not (re.fullmatch("[0-9]{1,7}", values[name]) and 0 < int(values[name]) <= MOST[name]):
            problems.append(f"{name} must be a whole number from 1 to {MOST[name]}, got {values[name][:60]!r}")
    precision = values.get("precision", "fp32")
    able = OF_ONNXRUNTIME if runtime == "onnxruntime-cpu" else ("fp32",) if is_own(runtime) else ("fp32", "bf16")
    if precision not in PRECISIONS:
        problems.append(f"precision must be fp32, bf16 or int8, got {precision!r}")
    elif precision not in able and (runtime in RUNTIMES or is_own(runtime)):
        problems.append(f"{runtime} computes in {' and '.join(able)}, got precision={precision}")
    if problems:
        hint = (
            f"such as onnxruntime-cpu:batch=1,threads=1; or profile:FILE, from `{command_line('latency', 'profile')}`"
        )
        raise ConfigError(f"target {text!r}: " + "; ".join(problems), hint=hint)
    batch, threads = (int(values[name]) if name in values else None for name in ("batch", "threads"))
    return Target(runtime=runtime, precision=precision, batch=batch, threads=threads or 1)


def missing_package(runtime: str) -> str | None:
    """The package that a runtime needs and that is not installed."""
    package = next((package for prefix, package in NEEDED.items() if runtime.startswith(prefix)), None)
    return package if package and find_spec(package) is None else None


def _runtimes_here() -> str:
    """All runtimes in words: those of this machine, and what the others lack."""
    lacks = {name: f"pip install {package}" for name in RUNTIMES if (package := missing_package(name))}
    if not _sees_cuda():
        lacks |= {name: "no CUDA device" for name in RUNTIMES if name.startswith("torch-cuda")}
    here = ", ".join(name for name in RUNTIMES if name not in lacks)
    others = ", ".join(f"{name} ({reason})" for name, reason in lacks.items())
    told = f"on this machine: {here}" + (f"; not here: {others}" if others else "")
    return f"{told}; onnxruntime-cpu computes in {' and '.join(OF_ONNXRUNTIME)}, all others in fp32 and bf16"


def _sees_cuda() -> bool:
    import torch  # takes seconds, and only a message asks

    return torch.cuda.is_available()


def profile_path(text: str) -> Path | None:
    """The file of `profile:FILE`; None where the target is none."""
    return Path(text.removeprefix(PROFILE)) if text.startswith(PROFILE) else None


def target_problems(texts: Sequence[str]) -> list[str]:
    """Everything that is wrong with the targets of a run."""
    problems = []
    for text in texts:
        try:
            if profile_path(text) is None:
                parse_target(text)
        except ConfigError as error:
            problems.append(error.message)
    if len(texts) > len(LATENCIES):
        problems.append(f"{len(texts)} targets, there can be {len(LATENCIES)}")
    if len(set(texts)) < len(texts):
        problems.append("a target is given twice")
    return problems


def _guess(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""
