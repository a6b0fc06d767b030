"""A subnet as an ONNX file: what an export writes, and what ONNX Runtime and OpenVINO are timed on."""

from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from nas.model import Subnet


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


def write_onnx(program: ExportedProgram, path: Path) -> None:
    """Write a traced subnet: input `images`, output `logits`, free batch size, weights inside."""
    torch.onnx.export(
        program,
        f=path,
        dynamo=True,
        verbose=False,  # it prints its progress to stdout
        external_data=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=_batch_dimension(),  # again, or the axis is called s34
    )


def _batch_dimension() -> tuple[dict[int, Any]]:
    return ({0: Dim("batch", min=1)},)
