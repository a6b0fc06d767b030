"""A subnet's ONNX file in eight bits, by ONNX Runtime's static quantisation, and how much faster it is.

Quantised is what multiplies with weights: linear layers and convolutions. What comes in has one scale a tensor, from
the calibration; weights have one a channel. All else stays in fp32: with the products of two activations, which
attention has, DeiT-Ti is as fast (0.94 to 1.23 times in turn), and with results rounded too it is slower
(`benchmarks/int8.py`).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.base import temporary_folder
from nas.latency.device_measure import runner
from nas.latency.onnx_file import strip

PRODUCTS = ("MatMul", "Gemm", "Conv")
"""Operators of ONNX that are quantised."""

CALIBRATION_IMAGES = 256
CALIBRATION_STEP = 32  # images that calibration sees at once


def write_int8(source: Path, path: Path, batches: Iterable[NDArray[np.float32]], **options: Any) -> None:
    """Quantise an ONNX file of `write_onnx`: the same input, output and metadata, `path` may be the file itself.

    The batches [B, C, S, S] are normalised images that calibrate: the ranges are the least and the greatest value seen.
    The options are those of `quantize_static`, instead of ours.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, feeds: Iterator[dict[str, Any]]) -> None:
            self.feeds = feeds

        def get_next(self) -> dict[str, Any] | None:
            return next(self.feeds, None)

    facts = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    with temporary_folder("int8") as folder:
        # Without symbolic shapes, at which the oldest ONNX Runtime stops; nothing here needs them.
        quant_pre_process(source, folder / "prepared.onnx", skip_symbolic_shape=True)
        graph = onnx.load(folder / "prepared.onnx").graph
        weights = {entry.name for entry in graph.initializer}
        weightless = [node.name for node in graph.node if node.op_type == "MatMul" and not weights & set(node.input)]
        quantize_static(
            folder / "prepared.onnx",
            folder / "int8.onnx",
            Reader({"images": batch} for batch in batches),
            **{
                "op_types_to_quantize": list(PRODUCTS),
                "per_channel": True,
                "activation_type": QuantType.QUInt8,
                "weight_type": QuantType.QInt8,
                "nodes_to_exclude": weightless,
                "extra_options": {"OpTypesToExcludeOutputQuantization": list(PRODUCTS)},
            }
            | options,
        )
        model = onnx.load(folder / "int8.onnx")
    strip(model)
    used = {node.domain for node in model.graph.node}
    versions = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]  # all that ONNX Runtime knows, though readers need not
    model.opset_import.extend(versions)
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, path)


def file_ratio(path: Path, reference: Path, images: NDArray[np.float32], pairs: int) -> tuple[float, float, float]:
    """Quartiles (25 %, 50 %, 75 %) of the time of an ONNX file over another's, on one thread, timed in turn."""
    times = [runner(file, images, 1, "CPUExecutionProvider") for file in (path, reference)]
    ratios = []
    for pair in range(pairs):
        order = (0, 1) if pair % 2 == 0 else (1, 0)
        seconds = {i: times[i]() for i in order}
        ratios.append(seconds[0] / seconds[1])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)
