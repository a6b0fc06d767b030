"""A target turns an extracted subnet into a function that runs one batch, with all that can be prepared done."""

import copy
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from nas.arch import Architecture, Backbone
from nas.base import ConfigError, EvaluationError, command_line, disk_error, plural, temporary_folder
from nas.latency.int8 import CALIBRATION_STEP, write_int8
from nas.latency.onnx_file import save_onnx
from nas.model import Subnet
from nas.settings import Target, is_own, missing_package

Program = Callable[[], Any]
"""Runs one batch and returns its logits, a tensor or an array; on a GPU possibly before they are there."""

GRAPH_WARM_UP = 3  # passes on a side stream before a CUDA graph may be captured


def random_subnet(backbone: Backbone, architecture: Architecture) -> Subnet:
    """A network with initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        subnet = Subnet(backbone, architecture)
        subnet.init_weights()
    return subnet.eval().requires_grad_(False)


class PackedLinear(nn.Module):
    """A linear layer, [..., in] -> [..., out], whose weights oneDNN has put in the order that its kernels read."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return product


def prepare(target: Target, model: nn.Module, images: Tensor) -> Program:
    """A function that runs `model` on `images` as the target does.

    The model is a subnet in evaluation mode, which is not changed; the torch runtimes take any module. The images are
    [B, C, S, S], fp32, on a CPU.

    Raises:
        ConfigError: The runtime, or the device, is not there.
        EvaluationError: The model cannot be made ready for it.
        OutOfMemoryError: torch's; it does not fit into the device.
        MemoryError: It does not fit into this machine.
    """
    check_available(target)
    try:
        with torch.inference_mode(False), torch.no_grad():
            runtimes = {"onnxruntime-cpu": _onnxruntime, "openvino-cpu": _openvino}
            return runtimes.get(target.runtime, _torch)(target, model, images)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # four compilers raise what they like; the trial fails, with the reason
        if full := disk_error(error):
            raise full from error
        raise EvaluationError(f"{target.runtime} cannot take it: {type(error).__name__}: {error}") from error


def check_available(target: Target) -> None:
    """Find out whether this machine can measure a target; a ConfigError says what is missing."""
    if target.is_cuda and not torch.cuda.is_available():
        raise ConfigError(
            f"target {target}: torch sees no CUDA device", hint=f"a CPU target, or `{command_line('doctor')}`"
        )
    if is_own(target.runtime) and target.own is None:
        raise ConfigError(f"target {target} is an object of a Python program", hint="nas.search(..., targets=[...])")
    if (package := missing_package(target.runtime)) is not None:
        raise ConfigError(f"target {target}: {package} is not installed", hint=f"pip install {package}")
    if target.runtime == "torch-cpu-packed" and not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        raise ConfigError(f"target {target}: this torch has no oneDNN", hint="--target torch-cpu")


def excess_threads(target: Target) -> str | None:
    """In words, that a target has more threads than this machine has cores for this process; None: it has not."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if target.is_cuda or is_own(target.runtime) or target.threads <= cores:
        return None
    return f"target {target}: {target.threads} threads wait for each other on {plural(cores, 'core')}"


def describe(target: Target) -> str:
    """`Conditions.target`: runtime and precision, and the runtime's version where it is not torch's."""
    package = target.runtime.partition("-")[0]
    return target.kind if package == "torch" or is_own(target.runtime) else f"{target.kind} {_version(package)}"


def device_of(target: Target) -> torch.device:
    """Where the model is."""
    return torch.device("cuda" if target.is_cuda else "cpu")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads for the duration of a `with` block."""
    before = torch.get_num_threads()
    if before != count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if before != count:
            torch.set_num_threads(before)


@contextmanager
def own_cores(target: Target) -> Iterator[tuple[int, ...]]:
    """Pin this process to as many cores as the target has threads, those that are idle now; yields them.

    None on a GPU and on a device of a Python program, where the system has no affinity, and where there are not more
    cores than asked for.
    """
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if target.is_cuda or is_own(target.runtime) or len(allowed) <= target.threads:
        yield ()
        return
    load = psutil.cpu_percent(interval=0.3, percpu=True)
    chosen = tuple(sorted(sorted(allowed, key=lambda core: load[core] if core < len(load) else 0.0)[: target.threads]))
    _pin(set(chosen))
    try:
        yield chosen
    finally:
        _pin(set(allowed))


def _pin(cores: set[int]) -> None:
    """Every thread of this process: those that are there keep their own affinity otherwise."""
    for thread in psutil.Process().threads():
        with suppress(OSError):  # it has ended
            os.sched_setaffinity(thread.id, cores)


def machine_state() -> dict[str, Any]:
    """What disturbs a measurement: load averages of 1 and 5 minutes, and the clock in MHz where it is known."""
    try:
        frequency = psutil.cpu_freq()
    except (OSError, AttributeError, RuntimeError):  # hidden in containers, and on some chips
        frequency = None
    load = psutil.getloadavg()
    return {
        "load_average": [round(load[0], 2), round(load[1], 2)],
        "cpu_mhz": round(frequency.current) if frequency and frequency.current else None,
        "cores": os.cpu_count(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _torch(target: Target, model: nn.Module, images: Tensor) -> Program:
    device, number = device_of(target), torch.bfloat16 if target.precision == "bf16" else torch.float32
    is_plain = target.runtime in ("torch-cpu", "torch-cuda") and target.precision == "fp32"
    is_there = all(parameter.device.type == device.type for parameter in model.parameters())
    ready = model if is_plain and is_there else copy.deepcopy(model).to(device, number)
    batch = images.to(device, number)
    if target.runtime == "torch-cpu-packed":
        for parent in list(ready.modules()):
            for name, child in parent.named_children():
                if type(child) is nn.Linear:
                    setattr(parent, name, PackedLinear(child))
    if target.runtime == "torch-cpu-compiled":
        torch._dynamo.reset()  # or the code of earlier candidates piles up, and after eight there is none for more
        compiled = torch.compile(ready, dynamic=False, options={"freezing": True})
        with torch.inference_mode(), torch_threads(target.threads):
            compiled(batch)
        return lambda: compiled(batch)
    return _cuda_graph(ready, batch) if target.runtime == "torch-cuda-graph" else lambda: ready(batch)


def _cuda_graph(model: nn.Module, batch: Tensor) -> Program:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(side):
        for _ in range(GRAPH_WARM_UP):
            model(batch)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        logits: Tensor = model(batch)

    def replay() -> Tensor:
        graph.replay()
        return logits

    return replay


def own_timer(target: Target, model: nn.Module, images: Tensor) -> Callable[[int], float]:
    """What times forward passes on a device of a Python program (`OwnTarget.timer`), and checks what it says.

    Raises:
        EvaluationError: The device cannot take the model, or what it returns is no time.
    """
    check_available(target)
    assert target.own is not None, "check_available"
    try:
        with torch.inference_mode(False), torch.no_grad():
            timer = target.own.timer(model, images)
    except Exception as error:  # another's code; the trial fails, with the reason
        raise EvaluationError(f"{target.runtime} cannot take it: {type(error).__name__}: {error}") from error

    def forward(times: int) -> float:
        with torch.inference_mode():
            seconds = timer(times)
        if not (isinstance(seconds, float | int) and 0 < seconds < math.inf):
            raise EvaluationError(f"{target.runtime}: {seconds!r} are no seconds")
        return seconds

    return forward


@contextmanager
def _as_onnx(model: nn.Module) -> Iterator[Path]:
    if not isinstance(model, Subnet):
        raise TypeError(f"only a Subnet can be written as ONNX, not a {type(model).__name__}")
    with temporary_folder("onnx") as folder:
        path = folder / "model.onnx"
        save_onnx(model, path)
        yield path


def _onnxruntime(target: Target, model: nn.Module, images: Tensor) -> Program:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = target.threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with _as_onnx(model) as path:
        if target.precision == "int8":  # calibrated on noise: how fast it is does not hang on the ranges
            write_int8(path, path, [images[:CALIBRATION_STEP].numpy()])
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {"images": images.numpy()}
    return lambda: session.run(["logits"], feed)[0]


def _openvino(target: Target, model: nn.Module, images: Tensor) -> Program:
    import openvino

    with _as_onnx(model) as path:
        read = openvino.Core().read_model(path)
    read.reshape(list(images.shape))
    hints = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[target.precision],
        "INFERENCE_NUM_THREADS": target.threads,
        "NUM_STREAMS": 1,
    }
    compiled = openvino.compile_model(read, "CPU", hints)
    request, feed = compiled.create_infer_request(), images.numpy()
    return lambda: request.infer({0: feed})[0]
