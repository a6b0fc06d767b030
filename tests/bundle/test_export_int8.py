"""A file in eight bits: calibrated, judged as it was reloaded, timed, and told; or refused whole."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from bundles import draw_image, export, images_for, logits_of, run_python, snippets

from nas.base.errors import ExportError
from nas.bundle.bundle import Int8
from nas.model.families.vit import Subnet

FOUND = {
    "top1": 90.0, "top1_ci": [86.0, 93.0], "float_top1": 91.0, "lost_points": 1.0, "lost_points_ci": [0.1, 1.9],
    "max_lost_points": 1.0, "calibration_images": 8, "test_top1": 89.0, "test_top1_ci": [85.0, 92.0],
    "test_lost_points": 0.5, "test_lost_points_ci": [-0.2, 1.2],
}  # fmt: skip


@pytest.mark.slow
def test_eight_bits_are_calibrated_judged_as_reloaded_timed_and_told(small: Subnet, tmp_path: Path) -> None:
    images, told = images_for(small.backbone, 40), []

    def judge(run: Any) -> dict[str, Any]:
        told.append((logits_of(run, images), list(tmp_path.iterdir())))
        return FOUND

    int8 = Int8(images=images.numpy(), judge=judge)
    report = export(small, tmp_path / "b", formats=("timm", "onnx", "onnx-int8"), int8=int8)
    ((logits, seen),) = told
    assert tmp_path / "b" not in seen  # a refusal leaves nothing
    expected = logits_of(small, images)
    assert 0 < (logits - expected).abs().max() < 0.1 * expected.abs().max()
    table = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert {key: table["int8"][key] for key in FOUND} == FOUND
    assert table["int8"]["latency_ratio"] > 0
    assert report.to_dict()["int8"] == table["int8"]
    sizes = {row.format: row.size_bytes for row in report.formats}
    assert list(sizes) == ["timm", "onnx", "onnx-int8"]
    facts = [
        {e.key: e.value for e in onnx.load(tmp_path / "b" / n).metadata_props}
        for n in ("model.onnx", "model_int8.onnx")
    ]
    assert facts[0] == facts[1]
    card = (tmp_path / "b" / "README.md").read_text()
    for text in (
        "| int8: top-1 | 90 | 86 to 93 | % | search split, 144 images, fp32 gets 91 |",
        "| int8: top-1 lost | 1 | 0.1 to 1.9 | points | of fp32, on the same images |",
        "| int8: top-1, test | 89 | 85 to 92 | % | test split |",
        "| int8: latency over float | ",
        "model_int8.onnx",
    ):
        assert text in card, text
    snippet = snippets(card)[2] + "print(logits.shape, logits)\n"
    assert "b/model_int8.onnx" in snippet
    seen = []
    for sideways in (False, True):
        draw_image(tmp_path / "image.png", sideways=sideways)
        seen.append(run_python(snippet, tmp_path))
    assert seen[0] == seen[1]
    assert seen[0].splitlines()[1].startswith("(1, 10)")


@pytest.mark.slow
def test_what_loses_too_much_in_eight_bits_is_refused_whole(small: Subnet, tmp_path: Path) -> None:
    def judge(_: Any) -> dict[str, Any]:
        raise ExportError("too much")

    int8 = Int8(images=images_for(small.backbone).numpy(), judge=judge)
    with pytest.raises(ExportError, match="too much"):
        export(small, tmp_path / "b", formats=("onnx-int8",), int8=int8)
    assert list(tmp_path.iterdir()) == []
