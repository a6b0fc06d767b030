"""`export_bundle`: one point of a front as a folder of model files that other programs load.

What was written is loaded again from disk and compared; a bundle that differs is not left behind.
"""

import copy
import difflib
import io
import json
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from nas.base import (
    METRICS,
    SCHEMA_VERSION,
    ConfigError,
    check_writable,
    read_json,
    remove,
    replacing,
    scratch_path,
    shared,
    temporary_folder,
    to_json_text,
    writing,
)
from nas.bundle.bundle import (
    ARCHITECTURE,
    CARD,
    FILES,
    INT8,
    NEEDED,
    OWN_FILES,
    PROVENANCE,
    TABLE,
    BundleOptions,
    ExportReport,
    Int8,
    compare,
    file_facts,
    load,
    require,
)
from nas.bundle.card import model_card
from nas.data import DataInfo
from nas.latency import (
    CALIBRATION_STEP,
    check_opset,
    default_batch,
    describe,
    device_name,
    file_ratio,
    own_cores,
    trace,
    write_int8,
    write_onnx,
)
from nas.model import Subnet
from nas.settings import Target

RUN_KEYS = ("run", "seed", "space_digest", "splits")
"""What of a bundle's provenance says that it is of the same run."""
RETRAIN = "retrain"
"""The key of a bundle's provenance where its network was trained alone."""
TEST_KEYS = ("test_top1", "test_top1_ci", "test_images")
WRITERS = ("torch", "torchvision", "timm", "numpy", "safetensors")
SPEED_PAIRS = 15  # of timings, in eight bits and as float, in turn
ON_CPU = Target(runtime="onnxruntime-cpu", precision="int8")


def export_bundle(
    subnet: Subnet,
    directory: str | Path,
    *,
    options: BundleOptions,
    info: DataInfo,
    point: Mapping[str, Any],
    provenance: Mapping[str, Any],
    int8: Int8 | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> ExportReport:
    """Write a model bundle, load it again and compare it with the searched network.

    The folder appears in one step and complete, or not at all. An earlier bundle of the same run there is replaced, if
    both are as searched, or both the same architecture trained alone; it stays when this export fails. Weights are
    written as fp32; `subnet` is not changed.

    `point` is the row of the table, as in
    `front --format json`, with digest, macs and params at least. The provenance (run, commands, versions, data hashes,
    seeds) has JSON values. `int8` goes with the format of that name. `on_step` is told in a few words what begins.

    Raises:
        ConfigError: An unknown format, a missing package, arguments that do not fit the network, or something else in
            the folder, such as the bundle of another run.
        ExportError: What was written differs; says where. Or eight bits lose too much accuracy.
        DiskError: It cannot be written.
        RunError: `point` or `provenance` is not JSON.
    """
    chosen = check_options(options)
    preprocessing = {
        "exif_orientation": "applied",  # before all else: a photo of a phone is often stored sideways
        "mean": list(map(float, info.mean)),
        "std": list(map(float, info.std)),
        "interpolation": "bicubic",
        "crop_pct": info.crop_pct,
        "class_names": list(info.class_names),
    }
    point, provenance = shared(point), shared({**provenance, "written_with": versions(chosen)})
    _check_arguments(subnet, preprocessing, point)
    model = copy.deepcopy(subnet).cpu().float().eval().requires_grad_(False)
    target = Path(directory).absolute()
    if _bundle_at(target, provenance):
        on_step(f"the bundle in {target} is replaced once this one is whole")
    with _replacing(target, provenance) as folder:
        seconds, speed = _write_formats(model, folder, replace(options, formats=chosen), preprocessing, int8, on_step)
        _write_json(folder / ARCHITECTURE, model.architecture.to_dict())
        _write_json(folder / PROVENANCE, provenance)
        table: dict[str, Any] = {
            **{key: value for key, value in point.items() if key != "architecture"},
            "schema_version": SCHEMA_VERSION,
            "flops": 2 * point["macs"],
            "units": {**{name: metric.unit for name, metric in METRICS.items()}, "flops": "FLOPs/image"},
            "backbone": model.backbone.to_dict(),
            "preprocessing": preprocessing,
            **({"license": options.license} if options.license else {}),
            "formats": {name: {"files": file_facts(folder, name)} for name in chosen},
        }
        _write_json(folder / TABLE, table)
        compared = compare(folder, model, on_step)
        reports = tuple(replace(report, seconds=seconds[report.format] + report.seconds) for report in compared)
        for report in reports:
            table["formats"][report.format]["max_delta"] = report.max_delta
        if int8 is not None and INT8 in chosen:
            on_step(f"{INT8}: measure its accuracy")
            table["int8"] = int8.judge(load(INT8, folder).run) | speed
        _write_json(folder / TABLE, table)
        card = model_card(target.name, model.architecture, model.backbone, table, provenance)
        (folder / CARD).write_text(card, encoding="utf-8")
        mode = (folder / CARD).stat().st_mode  # as the user's umask has it; safetensors writes for the owner alone
        for path in folder.iterdir():
            path.chmod(mode)
    return ExportReport(
        directory=target,
        digest=model.architecture.digest,
        formats=reports,
        int8=table.get("int8"),
        test={key: table[key] for key in TEST_KEYS if key in table},
    )


def versions(formats: Iterable[str]) -> dict[str, str]:
    """Versions of what writes these formats and reads them back, those that are installed."""
    packages = {"vit-front", *WRITERS, *(package for name in formats for package in NEEDED.get(name, ()))}
    found = {"python": platform.python_version()}
    for name in sorted(packages):
        with suppress(PackageNotFoundError):  # such as a checkout that was not installed
            found[name] = version(name)
    return found


def check_options(options: BundleOptions) -> tuple[str, ...]:
    """The wanted formats in the order of `FILES`, each once; a ConfigError where something cannot be written."""
    formats = options.formats
    known = ", ".join(FILES)
    unknown = [name for name in dict.fromkeys(formats) if name not in FILES]
    if unknown:
        close = difflib.get_close_matches(unknown[0], FILES, n=1)
        guess = f'did you mean "{close[0]}"? ' if close else ""
        names = ", ".join(map(repr, unknown))
        raise ConfigError(f"unknown format {names}", hint=f"{guess}known formats: {known}")
    if not formats:
        raise ConfigError("no format to export", hint=f"known formats: {known}")
    require(formats, to_write=True)
    if options.opset is not None:
        if not {"onnx", INT8, "openvino"} & set(formats):
            raise ConfigError("an opset, and no format that is written from ONNX", hint="add onnx to the formats")
        check_opset(options.opset)
    if options.max_int8_loss is not None and INT8 not in formats:
        raise ConfigError(f"a limit on what eight bits lose, and no {INT8}", hint=f"add {INT8} to the formats")
    if options.license is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", options.license):
        raise ConfigError(
            f"licence {options.license!r} is no identifier", hint="give one of the hub's, such as apache-2.0 or other"
        )
    return tuple(name for name in FILES if name in formats)


def _check_arguments(subnet: Subnet, preprocessing: Mapping[str, Any], point: Mapping[str, Any]) -> None:
    channels, classes = subnet.backbone.in_chans, subnet.backbone.num_classes
    counts = {name: len(preprocessing[name]) for name in ("mean", "std", "class_names")}
    problems = [
        f"{name} has {counts[name]} values for {channels} channels"
        for name in ("mean", "std")
        if counts[name] != channels
    ]
    if counts["class_names"] != classes:
        problems.append(f"{counts['class_names']} class names for {classes} classes")
    missing = [key for key in ("digest", "macs", "params") if point.get(key) is None]
    if missing:
        problems.append(f"the row of the table lacks {', '.join(missing)}")
    if problems:
        raise ConfigError("nothing was exported: " + "; ".join(problems))


def check_place(target: Path, provenance: Mapping[str, Any]) -> None:
    """Find out, before long work for it, whether a bundle with this provenance can be written here.

    Raises:
        ConfigError: Something else is there.
        DiskError: It cannot be written.
    """
    _bundle_at(target, shared(provenance))
    check_writable(target)


def _bundle_at(target: Path, provenance: Mapping[str, Any]) -> set[str]:
    """Names in a folder that is a bundle of the same run, or none where it is missing or empty.

    Raises:
        ConfigError: It is something else.
    """
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file", hint="choose a folder")
    names = {path.name for path in target.iterdir()} if target.exists() else set()
    if names and not ({ARCHITECTURE, TABLE} <= names <= OWN_FILES):
        foreign = ", ".join(sorted(names - OWN_FILES)[:5]) or "an incomplete bundle"
        raise ConfigError(f"{target} holds something else: {foreign}", hint="choose a new folder")
    if names:
        try:
            held = dict(read_json(target / PROVENANCE))
        except (OSError, ValueError, TypeError):
            held = {}  # damaged, or from elsewhere
        if any(held.get(key) != provenance.get(key) for key in RUN_KEYS):
            text = f"{target} holds a bundle of another run: {held.get('digest', '?')} of {held.get('run', '?')}"
            raise ConfigError(text, hint="choose a new folder, or remove that one first")
        _check_kind(target, held, provenance)
    return names


def _check_kind(target: Path, held: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """A ConfigError where a bundle of the same run has other weights on purpose: only a training of one is replaced."""
    kinds = [f"{RETRAIN}ed" if RETRAIN in found else "searched" for found in (held, provenance)]
    digests = held.get("digest", "?"), provenance.get("digest", held.get("digest", "?"))
    if kinds[0] != kinds[1] or (RETRAIN in held and digests[0] != digests[1]):
        text = f"{target} holds the bundle of {digests[0]} as {kinds[0]}, which one as {kinds[1]} does not replace"
        if kinds[0] == kinds[1]:
            text = f"{target} holds the bundle of {digests[0]} as {kinds[0]}, which {digests[1]} does not replace"
        raise ConfigError(text, hint="choose a new folder, or remove that one first")


@contextmanager
def _replacing(target: Path, provenance: Mapping[str, Any]) -> Iterator[Path]:
    """Lend a scratch folder that takes the target's place when the block ends well, and vanishes when not."""
    with writing(target):
        names = _bundle_at(target, provenance)
        target.parent.mkdir(parents=True, exist_ok=True)
        old = scratch_path(target)
        try:
            with replacing(target) as scratch:
                scratch.mkdir()
                yield scratch
                if names:
                    target.rename(old)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
        remove(old)


def _write_formats(
    model: Subnet,
    folder: Path,
    options: BundleOptions,
    preprocessing: Mapping[str, Any],
    int8: Int8 | None,
    on_step: Callable[[str], None],
) -> tuple[dict[str, float], dict[str, Any]]:
    """Write every format; returns the seconds each took, and what is to be said of the speed in eight bits."""
    seconds, speed = {}, {}
    program: ExportedProgram | None = None
    for name in options.formats:
        path = folder / FILES[name][0]
        on_step(f"{name}: write {path.name}")
        started = time.perf_counter()
        if name == "timm":
            _write_timm(model, folder, preprocessing, options.license)
        else:
            program = program or trace(model)
            if name == "pt2":
                # Into memory first: where a disk is full, torch's own writer ends the process with SIGABRT.
                content = io.BytesIO()
                torch.export.save(program, content)
                path.write_bytes(content.getbuffer())
            elif name == "onnx":
                write_onnx(program, path, opset=options.opset, facts=_facts(model, preprocessing))
            elif name == INT8:
                assert int8 is not None, "what it takes"
                with temporary_folder("float") as scratch:
                    source = scratch / "model.onnx"
                    write_onnx(program, source, opset=options.opset, facts=_facts(model, preprocessing))
                    write_int8(source, path, np.array_split(int8.images, -(-len(int8.images) // CALIBRATION_STEP)))
                    speed = _speed(path, source, int8.images)
            else:
                _write_openvino(program, folder / FILES[name][1], options.opset)
        seconds[name] = time.perf_counter() - started
    return seconds, speed


def _speed(path: Path, reference: Path, images: NDArray[np.float32]) -> dict[str, Any]:
    """Time in eight bits over that of the float file, on this machine, and what it holds for: JSON values.

    The images [N, C, S, S] are one batch, of which as many are taken as where no target says it.
    """
    batch = min(default_batch(images.shape[-1]), len(images))
    with own_cores(ON_CPU):
        low, ratio, high = file_ratio(path, reference, images[:batch], SPEED_PAIRS)
    return {
        "latency_ratio": ratio,
        "latency_ratio_quartiles": [low, high],
        "latency_batch_size": batch,
        "latency_threads": ON_CPU.threads,
        "latency_target": describe(ON_CPU),
        "latency_device": device_name("cpu"),
    }


def _write_openvino(program: ExportedProgram, path: Path, opset: int | None) -> None:
    """In fp32; the weights go beside it."""
    import openvino

    with temporary_folder("openvino") as scratch:
        write_onnx(program, scratch / "model.onnx", opset=opset)
        read = openvino.Core().read_model(scratch / "model.onnx")
        openvino.save_model(read, path, compress_to_fp16=False)


def _facts(model: Subnet, preprocessing: Mapping[str, Any]) -> dict[str, str]:
    """What a program needs to use the ONNX file alone: lists and numbers as JSON, words as they are."""
    backbone = model.backbone
    size = [backbone.in_chans, backbone.image_size, backbone.image_size]
    facts = {"architecture": model.architecture.digest, "input_size": size, **preprocessing}
    return {key: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for key, v in facts.items()}


def _write_timm(model: Subnet, folder: Path, preprocessing: Mapping[str, Any], license_: str | None) -> None:
    backbone = model.backbone
    input_size = (backbone.in_chans, backbone.image_size, backbone.image_size)
    described = copy.copy(model)
    described.pretrained_cfg = timm.get_pretrained_cfg("nas_vit").to_dict() | {
        "num_classes": backbone.num_classes,
        "input_size": input_size,
        "first_conv": next(name for name, part in model.named_modules() if isinstance(part, torch.nn.Conv2d)),
        **({"license": license_} if license_ else {}),
    }
    timm.models.save_for_hf(
        described,
        str(folder),
        safe_serialization=True,
        model_config={"label_names": preprocessing["class_names"]},
        model_args={"architecture": model.architecture.to_dict(), "backbone": backbone.to_dict()},
        data_config={
            "input_size": input_size,
            **{key: preprocessing[key] for key in ("mean", "std", "interpolation", "crop_pct")},
        },
    )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["model_args"].pop("num_classes", None)  # the backbone has it; transformers stops where it is there twice
    _write_json(folder / "config.json", config)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(to_json_text(dict(values)), encoding="utf-8")
