"""A model bundle: the files it holds, and the comparison that every bundle has to pass.

Each format is loaded from its files, as a user would, and compared with the searched network and its row of
the table: content of the files, logits at several batch sizes, parameters, MACs.
"""

import copy
import hashlib
import importlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.arch import Architecture, Backbone
from nas.base import ConfigError, ExportError, NasError, check_schema, plural, problem_words, read_json
from nas.latency import load_onnx
from nas.model import Subnet

FILES: Mapping[str, tuple[str, ...]] = {
    "timm": ("model.safetensors", "config.json"),
    "pt2": ("model.pt2",),
    "onnx": ("model.onnx",),
    "onnx-int8": ("model_int8.onnx",),
    "openvino": ("openvino_model.bin", "openvino_model.xml"),
}
"""Files of every format, the one with the weights first."""

INT8 = "onnx-int8"
DEFAULT_FORMATS = ("timm", "pt2", "onnx")
MAX_INT8_LOSS = 1.0
"""Points of top-1 that the file in eight bits may lose, where a user says nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleOptions:
    """What a user says of a bundle: formats (keys of `FILES`), opset of ONNX (None: torch's choice), licence.

    `max_int8_loss` is in points of top-1; None: one.
    """

    formats: Sequence[str] = DEFAULT_FORMATS
    opset: int | None = None
    max_int8_loss: float | None = None
    license: str | None = None  # of the weights, as the Hugging Face hub spells it, such as apache-2.0; None: unsaid


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Int8:
    """What a file in eight bits takes beside the network.

    Attributes:
        images: [N, C, S, S], normalised; their activations are the ranges of its numbers.
        judge: Takes the reloaded file (normalised images -> logits) and returns what the table says of its accuracy;
            an ExportError: it lost too much.
    """

    images: NDArray[np.float32]
    judge: Callable[[Callable[[Tensor], Tensor]], dict[str, Any]]


NEEDED: Mapping[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    INT8: ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
"""Packages beyond torch and timm that write a format; the last one runs it."""

ARCHITECTURE, TABLE, PROVENANCE, CARD = "architecture.json", "metrics.json", "provenance.json", "README.md"
OWN_FILES = frozenset({ARCHITECTURE, TABLE, PROVENANCE, CARD}.union(*FILES.values()))

TOLERANCE: Mapping[str, float] = {"timm": 0.0, "pt2": 0.0, "onnx": 1e-4, INT8: 1e9, "openvino": 1e-4}
"""Greatest difference of a logit on a CPU in fp32. The first two run the same kernels: they are bit-equal.

Eight bits are another network, whose accuracy is judged (`Int8`); of its logits only shape and NaN."""

BATCHES = (1, 2, 7)  # 1 is what exporters like to bake in, 7 is what nobody traced with
GRAPH_ALLOWANCE = 4 * 2**20  # bytes for the graph, and for the sample input that torch.export keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatReport:
    """One format of a bundle, a key of `FILES`, as it came back from disk; `file` has the weights.

    `max_delta` is the greatest absolute difference of a logit from the reference, by batch size; `seconds` the time
    that it took to write (on export), load and compare it.
    """

    format: str
    file: str
    size_bytes: int
    max_delta: Mapping[int, float]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """A bundle that passed the comparison: its folder, its architecture, its formats in the order of `FILES`."""

    directory: Path
    digest: str
    formats: tuple[FormatReport, ...]
    int8: Mapping[str, Any] | None = None  # as in the table, where it has the format
    test: Mapping[str, Any] | None = None  # the keys `test_*` of the table, where it has them

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {"directory": str(self.directory), "digest": self.digest, "files": list(map(asdict, self.formats))}
        return values | ({"int8": self.int8} if self.int8 else {}) | dict(self.test or {})


def require(formats: Iterable[str], *, to_write: bool) -> None:
    """Import what the formats need, to read them or also to write them; a ConfigError names all that is missing."""
    problems, missing = [], []
    for name in formats:
        needed = NEEDED.get(name, ()) if to_write else NEEDED.get(name, ())[-1:]
        absent = [module for module in needed if not _is_importable(module)]
        if absent:
            problems.append(f"the {name} format needs {' and '.join(absent)}, which cannot be imported")
            missing += absent
    if problems:
        raise ConfigError(
            "; ".join(problems), hint=f"pip install {' '.join(dict.fromkeys(missing))}, or choose other formats"
        )


def _is_importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def file_facts(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of the files of a format, by file name."""
    return {
        file: {"size_bytes": (folder / file).stat().st_size, "sha256": _sha256(folder / file)} for file in FILES[name]
    }


def compare(folder: Path, reference: Subnet, on_step: Callable[[str], None]) -> tuple[FormatReport, ...]:
    """Load every format of a bundle from its files and compare it with the reference and the table.

    The reference is the searched network, on a CPU in fp32; `on_step` is told in a few words what begins.

    Raises:
        ConfigError: The package that runs a format is missing.
        ExportError: Lists every difference.
    """
    table, architecture, backbone = read_table(folder)
    formats = [name for name in FILES if name in table["formats"]]
    require(formats, to_write=False)
    problems = [
        f"{ARCHITECTURE} holds architecture {architecture.digest}, {source} {digest}"
        for source, digest in (("the table", table["digest"]), ("the network", reference.architecture.digest))
        if digest != architecture.digest
    ]
    expected = _logits(reference, backbone)
    counted: nn.Module | None = None
    reports = []
    for name in formats:
        on_step(f"{name}: reload and compare")
        started = time.perf_counter()
        damage = list(file_damage(folder, name, table["formats"][name]["files"], table["params"]))
        problems += damage
        if damage:
            continue  # nothing loads a file that somebody else wrote
        try:
            loaded = load(name, folder)
            logits = _logits(loaded.run, backbone)
        except Exception as error:  # noqa: BLE001 - four runtimes raise what they like
            problems.append(f"{name}: does not load and run: {type(error).__name__}: {error}")
            continue
        deltas = {batch: _delta(logits[batch], expected[batch]) for batch in BATCHES}
        problems += [
            f"{name}: logits differ by {delta:.3g} at batch size {batch}, allowed are {TOLERANCE[name]:g}"
            for batch, delta in deltas.items()
            if not delta <= TOLERANCE[name]  # so written, NaN is a difference
        ]
        if loaded.params not in (None, table["params"]):
            problems.append(f"{name}: {loaded.params:,} parameters, the table has {table['params']:,}")
        counted = counted or loaded.module
        file, seconds = FILES[name][0], time.perf_counter() - started
        size = (folder / file).stat().st_size
        reports.append(FormatReport(format=name, file=file, size_bytes=size, max_delta=deltas, seconds=seconds))
    macs, flops = table["macs"], _count_flops(counted, architecture, backbone)
    if flops != 2 * macs:
        problems.append(f"{flops:,} FLOPs counted, the table's {macs:,} MACs make {2 * macs:,}")
    if problems:
        raise ExportError(
            f"the bundle is not the searched network: {plural(len(problems), 'difference')}\n"
            + "\n".join(f"  {p}" for p in problems),
            hint="do not use these files; export again, and report it where that fails too",
        )
    return tuple(reports)


def check_there(folder: Path) -> None:
    """Raise a ConfigError where no bundle is in a folder."""
    if not (folder / TABLE).is_file():
        raise ConfigError(f"{folder}: no bundle, there is no {TABLE}", hint="give a folder that `export` wrote")


def check_bundle(folder: Path) -> dict[str, Any]:
    """The table of a bundle whose files are still those that passed the comparison (`compare`).

    Raises:
        ExportError: It is no bundle, it was not compared, or something changed since; lists everything.
    """
    table, architecture, _ = read_table(folder)
    problems = [] if (folder / CARD).is_file() else [f"{CARD}: missing"]
    if table["digest"] != architecture.digest:
        problems.append(f"{ARCHITECTURE} holds architecture {architecture.digest}, the table {table['digest']}")
    for name, written in table["formats"].items():
        problems += file_damage(folder, name, written["files"], table["params"])
        deltas = written.get("max_delta") or {}
        if set(map(str, deltas)) != set(map(str, BATCHES)) or not all(d <= TOLERANCE[name] for d in deltas.values()):
            problems.append(f"{name}: it was not found to be the searched network")
    if problems:
        raise ExportError(
            f"{folder}: not the bundle that was exported: {plural(len(problems), 'difference')}\n"
            + "\n".join(f"  {p}" for p in problems),
            hint="export it again from its run",
        )
    return table


def read_table(folder: Path) -> tuple[dict[str, Any], Architecture, Backbone]:
    """The table, the architecture and the fixed part that a bundle says it holds.

    Raises:
        ExportError: It is none, or damaged.
    """  # noqa: DOC501 - the ValueError within becomes an ExportError
    try:
        table = read_json(folder / TABLE)
        check_schema(table, TABLE)
        architecture = Architecture.from_json((folder / ARCHITECTURE).read_text(encoding="utf-8"))
        backbone = Backbone(**table["backbone"])
        written = table["formats"]
        facts = {file: written[name]["files"][file]["sha256"] for name in written for file in FILES[name]}
        numbers = [table["macs"], table["params"]]
        if not (facts and isinstance(table["digest"], str) and all(type(n) is int for n in numbers)):
            raise ValueError(f"{TABLE} lacks a format, or digest, macs or params have the wrong type")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, NasError) as error:
        raise ExportError(
            f"{folder} is no bundle, or a damaged one: {problem_words(error)}", hint="export it again from its run"
        ) from error
    return table, architecture, backbone


def file_damage(folder: Path, name: str, files: Mapping[str, Mapping[str, Any]], params: int) -> Iterator[str]:
    """Say what is wrong with the files of a format, before anything loads them."""
    for file, written in files.items():
        path = folder / file
        if not path.is_file():
            yield f"{file}: missing"
        elif _sha256(path) != written["sha256"]:
            yield f"{file}: the content is not what was written"
        elif file == FILES[name][0]:
            kind, least = ("int8", 0.9) if name == INT8 else ("fp32", 3.6)
            if not least * params <= path.stat().st_size <= 5 * params + GRAPH_ALLOWANCE:
                yield f"{file}: {path.stat().st_size:,} bytes for {params:,} {kind} parameters"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A format that was loaded: what runs it, and where it has them its parameters and its module."""

    run: Callable[[Tensor], Tensor]
    params: int | None = None
    module: nn.Module | None = None


def load(name: str, folder: Path) -> Loaded:
    """Load a format in this process, as a user would; it runs images [B, C, S, S] -> logits [B, K]."""
    path = folder / FILES[name][0]
    if name == "timm":
        with torch.random.fork_rng(devices=[]):  # timm draws initial weights before it loads these
            module = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        return Loaded(module, sum(p.numel() for p in module.parameters()), module)
    if name == "pt2":
        program = torch.export.load(path)
        return Loaded(program.module(), sum(p.numel() for p in program.parameters()))
    if name == "openvino":
        import openvino

        # Without the hint it computes in bf16 where the processor can.
        compiled = openvino.compile_model(folder / FILES[name][1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return Loaded(lambda images: torch.from_numpy(compiled({"images": images.numpy()})["logits"].copy()))
    return Loaded(load_onnx(path, torch.get_num_threads()))


def _logits(run: Callable[[Tensor], Tensor], backbone: Backbone) -> dict[int, Tensor]:
    """Logits of the same noise every time, by batch size."""
    shape, found = (backbone.in_chans, backbone.image_size, backbone.image_size), {}
    with torch.no_grad():
        for batch in BATCHES:
            found[batch] = run(torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch)))
    return found


def _delta(a: Tensor, b: Tensor) -> float:
    """Compute the greatest absolute difference; infinite where the shapes differ."""
    return (a - b).abs().max().item() if a.shape == b.shape else float("inf")


def _count_flops(loaded: nn.Module | None, architecture: Architecture, backbone: Backbone) -> int:
    """Count the FLOPs of one image in the reloaded module, or, where no format brings one, in a new one."""
    if loaded is None:
        with torch.device("meta"):
            loaded = Subnet(backbone, architecture)
    # On `meta`, because torch 2.13 and earlier count fused attention on a CPU as 0.
    module = copy.deepcopy(loaded).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.empty(1, backbone.in_chans, backbone.image_size, backbone.image_size, device="meta"))
    return int(counter.get_total_flops())
