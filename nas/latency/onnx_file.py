"""A subnet as an ONNX file: what an export writes, and what ONNX Runtime and OpenVINO are timed on."""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.nn import functional

from nas.base import ConfigError
from nas.model import Subnet

if TYPE_CHECKING:
    from onnx import ModelProto

OLDEST_OPSET = 18
"""The oldest that torch writes; ONNX's own converter cannot take its graphs further back."""


ATTENTION_OPSET = 23
"""The first that has attention as one operator."""


def trace(model: Subnet) -> ExportedProgram:
    """Trace the graph with a free batch size, and forget the source paths of the machine that traced it."""
    backbone = model.backbone
    # Two images, because the exporter bakes in sizes of 0 and 1.
    images = torch.zeros(2, backbone.in_chans, backbone.image_size, backbone.image_size)
    with torch.no_grad():
        program = torch.export.export(model, (images,), dynamic_shapes=_batch_dimension())
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def save_onnx(model: Subnet, path: str | Path) -> None:
    """Write a network as ONNX with a free batch size: input `images` [B, C, S, S], float32, output `logits` [B, K]."""
    write_onnx(trace(copy.deepcopy(model).cpu()), Path(path))


def check_opset(opset: int | None) -> None:
    """Refuse an opset that cannot be written with the installed packages: a ConfigError; None is torch's own choice."""
    from onnx.defs import onnx_opset_version
    from torch.onnx import _constants

    # torch has no public name for it; where it has none at all, what it wrote is looked at afterwards.
    newest = min(onnx_opset_version(), getattr(_constants, "ONNX_MAX_OPSET", onnx_opset_version()))
    if opset is not None and not OLDEST_OPSET <= opset <= newest:
        raise ConfigError(
            f"ONNX opset {opset} cannot be written",
            hint=f"torch {torch.__version__} and the installed onnx write {OLDEST_OPSET} to {newest}",
        )


def write_onnx(
    program: ExportedProgram, path: Path, *, opset: int | None = None, facts: Mapping[str, str] | None = None
) -> None:
    """Write a traced subnet: input `images`, output `logits`, free batch size, weights inside, `facts` as metadata.

    No tensor in the graph has more than four axes, which GPU delegates refuse, and shapes can be inferred by the tools
    of ONNX Runtime.

    Raises:
        ConfigError: The opset cannot be written.
    """
    import onnx

    check_opset(opset)
    written = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,  # it prints its progress to stdout
        input_names=["images"],
        output_names=["logits"],
        opset_version=opset,
        dynamic_shapes=_batch_dimension(),  # again, or the axis is called s34
        custom_translation_table=_translations(opset),
    )
    assert written is not None, "what dynamo returns"
    model = written.model_proto
    strip(model)
    found = {entry.domain: entry.version for entry in model.opset_import}[""]
    if opset not in (None, found):
        raise ConfigError(f"ONNX opset {opset} cannot be written: torch wrote {found}", hint="choose another opset")
    for key, value in (facts or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)


def load_onnx(path: Path, threads: int = 1) -> Callable[[Tensor], Tensor]:
    """A function that runs such a file with ONNX Runtime: normalised images [B, C, S, S] -> logits [B, K]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # its own choice warns in containers
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def strip(model: "ModelProto") -> None:
    """Forget what tools say about a model and every node: code, names of modules, as much as small weights."""
    graph = model.graph
    everything = (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output)
    for part in everything:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _translations(opset: int | None) -> dict[Callable[..., Any], Callable[..., Any]]:
    """What torch would write in a way that other tools trip over."""
    from torch.onnx import _constants

    aten = torch.ops.aten
    written = opset or getattr(_constants, "ONNX_DEFAULT_OPSET", None) or OLDEST_OPSET
    # From this opset on an operator of ONNX, which ONNX Runtime's shape inference takes for its own of the same name.
    attention = {aten.scaled_dot_product_attention.default: _attention} if written >= ATTENTION_OPSET else {}
    return attention | {
        # Where the sides do not divide: gathers of six axes, which GPU delegates refuse.
        aten.adaptive_avg_pool2d.default: _average,
        aten._adaptive_avg_pool2d.default: _average,
        # ReduceL2, which ONNX Runtime's shape inference does not know, so that `quant_pre_process` stops.
        aten.linalg_vector_norm.default: _norm,
    }


def _average(x: Any, output_size: Sequence[int]) -> Any:
    """Adaptive average pooling as two products: exact, as its windows do not depend on the image."""
    from onnx.numpy_helper import from_array
    from onnxscript import opset18 as op

    rows, columns = (_windows(int(old), int(new)) for old, new in zip(x.shape[2:], output_size, strict=True))
    of_rows = op.MatMul(op.Constant(value=from_array(rows.T.contiguous().numpy())), x)
    return op.MatMul(of_rows, op.Constant(value=from_array(columns.numpy())))


def _attention(q: Any, k: Any, v: Any, mask: Any = None, dropout: float = 0.0, causal: bool = False, **_: Any) -> Any:
    """Dynamic attention as two products."""
    from onnx.numpy_helper import from_array
    from onnxscript import opset18 as op

    assert mask is None and not dropout and not causal, "the only attention there is"  # noqa: PT018
    scale = op.Constant(value=from_array(np.array(q.shape[-1] ** -0.5, np.float32)))
    logits = op.MatMul(op.Mul(q, scale), op.Transpose(k, perm=[0, 1, 3, 2]))
    return op.MatMul(op.Softmax(logits, axis=-1), v)


def _windows(before: int, after: int) -> Tensor:
    """Shares of every old cell in the new ones, [before, after]."""
    return functional.adaptive_avg_pool1d(torch.eye(before)[None], after)[0]


def _norm(x: Any, order: float = 2.0, dim: Sequence[int] = (), keepdim: bool = False, dtype: Any = None) -> Any:
    """Euclidean length along some axes."""
    from onnxscript import opset18 as op

    assert order == 2.0 and dtype is None, "the only norm there is"  # noqa: PT018
    axes: Any = op.Constant(value_ints=list(dim))
    return op.Sqrt(op.ReduceSum(op.Mul(x, x), axes, keepdims=int(keepdim)))


def _batch_dimension() -> tuple[dict[int, Any]]:
    return ({0: Dim("batch", min=1)},)
