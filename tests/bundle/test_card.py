"""The model card says what was measured, in which unit, and where it comes from."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import factories
import numpy as np
import pytest
from bundles import (
    CLASS_TOKEN,
    EVERY_OPERATOR,
    MEAN,
    ROOT,
    STD,
    draw_image,
    export,
    logits_of,
    point_of,
    run_python,
    small_subnet,
    snippets,
    subnet_of,
)
from huggingface_hub import ModelCard
from PIL import Image
from ruamel.yaml import YAML
from timm.data import create_transform

from nas.arch import cost
from nas.bundle.bundle import FILES
from nas.bundle.card import MOST_CLASSES, model_card


def test_the_model_card_states_numbers_units_and_origin(tmp_path: Path) -> None:
    export(subnet_of(EVERY_OPERATOR, CLASS_TOKEN), tmp_path / "my_vit")
    card = (tmp_path / "my_vit" / "README.md").read_text()
    front_matter = YAML(typ="safe").load(card.split("---")[1])
    assert front_matter["library_name"] == "timm"
    macs = cost.macs(EVERY_OPERATOR, CLASS_TOKEN)
    for text in (
        "# my_vit",
        EVERY_OPERATOR.digest,
        "| top-1 | 91.25 | 88 to 93.5 | % | search split, 144 images |",
        f"| MACs | {macs:,} |",
        f"| FLOPs | {2 * macs:,} | | FLOPs/image | 2 x MACs |",
        "| latency | 1.5 | 1.4 to 1.6 | ms/batch | torch-cpu, batch size 64, threads 1 |",
        "Images are turned upright as their EXIF orientation says",
        "mean 0.4, 0.5, 0.6 and standard deviation 0.2, 0.25, 0.3",
        "python search.py run tiny.yaml",
        "optimistic",
    ):
        assert text in card, text


def test_conditions_read_from_a_record_are_told_as_those_just_measured(tmp_path: Path) -> None:
    small = small_subnet()
    measured = point_of(small)
    recorded = measured | {"conditions": dict(sorted(measured["conditions"].items()))}
    assert list(recorded["conditions"]) != list(measured["conditions"])
    for name, point in (("a", measured), ("b", recorded)):
        export(small, tmp_path / name / "vit", point=point)
    assert (tmp_path / "a/vit/README.md").read_text() == (tmp_path / "b/vit/README.md").read_text()


def test_a_test_result_is_on_the_card(tmp_path: Path) -> None:
    small = small_subnet()
    point = point_of(small) | {"test_top1": 88.5, "test_top1_ci": [85.0, 91.0], "test_images": 359}
    export(small, tmp_path / "b", point=point)
    card = (tmp_path / "b" / "README.md").read_text()
    assert "| top-1, test | 88.5 | 85 to 91 | % | test split, 359 images, fp32 |" in card


def test_a_noisy_latency_says_so_on_the_card_with_the_load(tmp_path: Path) -> None:
    timing = {"latency_ms": {"noisy": True, "rounds": 9, "load_average": 6.72, "cores": 2}}
    export(small_subnet(), tmp_path / "a", point=point_of(small_subnet()) | {"timing": timing})
    place = "torch-cpu, batch size 64, threads 1; noisy: true, not known within 2 %; load average 6.7 on 2 cores |"
    card = (tmp_path / "a" / "README.md").read_text()
    assert f"| latency | 1.5 | 1.4 to 1.6 | ms/batch | {place}" in card
    assert f"| latency by the image | 0.02344 | | ms/image | {place}" in card
    quiet = {"latency_ms": {**timing["latency_ms"], "noisy": False, "load_average": None}}
    export(small_subnet(), tmp_path / "b", point=point_of(small_subnet()) | {"timing": quiet})
    assert "1.4 to 1.6 | ms/batch | torch-cpu, batch size 64, threads 1 |" in (tmp_path / "b" / "README.md").read_text()
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["timing"] == timing


@pytest.mark.parametrize("kind", ["pt2", "onnx", "onnx-int8", "openvino", "timm"])
def test_the_card_speaks_of_the_files_that_there_are(kind: str) -> None:
    small = small_subnet()
    files = {file: {"size_bytes": 2_000_000, "sha256": ""} for file in FILES[kind]}
    prepared = {"mean": [0.5], "std": [0.5], "interpolation": "bicubic", "crop_pct": 1.0, "class_names": ["a"]}
    table = {**point_of(small), "preprocessing": prepared, "formats": {kind: {"files": files, "max_delta": {1: 0.0}}}}
    card = model_card("b", small.architecture, small.backbone, table, {"commands": []})
    about = YAML(typ="safe").load(card.split("---")[1])
    library = {"pt2": "pytorch", "openvino": "openvino", "timm": "timm"}.get(kind, "onnx")
    assert (about["library_name"], library in about["tags"]) == (library, True)
    assert ("timm" in card) is (kind == "timm")
    assert ("model.pt2" in card) is (kind == "pt2")
    assert all(f"| {kind} | {file} | 2.00 |" in card for file in FILES[kind])
    assert ".bin`," not in card  # openvino_model.bin is data
    if kind == "timm":
        assert "after `import nas`, timm takes `hf-hub:USER/NAME` for `local-dir:`" in card


def test_the_plain_vit_of_the_space_and_chance_are_on_the_card(tmp_path: Path) -> None:
    small = small_subnet()
    plain = {"shape": "d16 L3 h2 m4", "accuracy": "top-1", "value": 90.5, "ci": [88.0, 93.0], "macs": 123456}
    plain["weights"] = "inherited weights"
    bounded = {**plain, "keeps_bounds": False}
    export(small, tmp_path / "a", point=point_of(small) | {"plain": bounded})
    said = "the most accurate plain ViT of the search, which breaks the bounds of the search, d16 L3 h2 m4"
    assert said in (tmp_path / "a" / "README.md").read_text()
    export(small, tmp_path / "b", point=point_of(small) | {"plain": plain, "chance": 23.1})
    card = (tmp_path / "b" / "README.md").read_text()
    assert "| top-1, plain ViT | 90.5 | 88 to 93 | % | search split, 144 images; the most accurate plain ViT" in card
    assert "d16 L3 h2 m4, inherited weights |" in card
    assert "| MACs, plain ViT | 123,456 | | MACs/image | one image |" in card
    assert "| top-1 by chance | 23.1 | | % | one class at random, or always the most frequent |" in card
    assert "| latency by the image | 0.02344 | | ms/image | torch-cpu, batch size 64, threads 1 |" in card


def test_names_and_commands_cannot_write_into_the_card(tmp_path: Path) -> None:
    small = small_subnet()
    table = {
        **point_of(small),
        "flops": 2,
        "preprocessing": {
            "mean": [0.5],
            "std": [0.5],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "class_names": ["<b>"],
        },
        "formats": {},
        "conditions": {"device": "<script>alert(1)</script> | [a](b)\n# x"},
    }
    commands = ["python search.py run '```\n# not a command\n<b>'\x1b[31m"]
    name = "a</h1><script>\n# b\u202e"
    card = model_card(name, small.architecture, small.backbone, table, {"commands": commands, "run": "<b>"})
    text, fenced = card.split("## Reproduce")
    assert "# a\\</h1\\>\\<script\\> # b\\u202e" in text
    assert r"device \<script\>alert(1)\</script\> \| \[a\](b) # x" in text
    assert fenced.count("\n````") == 2  # a longer fence than what is in it
    assert "\x1b" not in card
    assert 'Run: "\\<b\\>".' in fenced


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "crop_pct", "sideways"), [(3, 0.8, True), (1, 1.0, False)])
def test_every_snippet_runs_as_it_stands_and_sees_what_timm_sees_upright(
    channels: int, crop_pct: float, sideways: bool, tmp_path: Path
) -> None:
    formats = ("timm", "pt2", "onnx") + (("openvino",) if importlib.util.find_spec("openvino") else ())
    subnet = subnet_of(factories.plain(depth=1), factories.backbone(in_chans=channels))
    prepared = {"crop_pct": crop_pct, "mean": (0.4, 0.5, 0.6)[:channels], "std": (0.2, 0.25, 0.3)[:channels]}
    export(subnet, tmp_path / "b c", formats=formats, **prepared)
    upright = draw_image(tmp_path / "image.png", "L" if channels == 1 else "RGB", sideways=sideways)
    size = (channels, subnet.backbone.image_size, subnet.backbone.image_size)
    transform = create_transform(size, interpolation="bicubic", **prepared)
    expected = logits_of(subnet, transform(upright)[None])[0].numpy()
    programs = snippets((tmp_path / "b c" / "README.md").read_text())
    assert len(programs) == len(formats)
    found = []
    for with_torch in (True, False):  # a program loads no more than it imports
        own = [program for program in programs if ("import torch" in program) == with_torch]
        tail = "\nprint(*map(float, logits[0]))\n"
        code = "".join(program + tail for program in own) + "import sys\nprint('torch' in sys.modules)"
        *lines, has_torch = run_python(code, tmp_path, path=ROOT).splitlines()
        assert has_torch == str(with_torch)
        found += [(name, np.array(logits.split(), float)) for name, logits in zip(*[iter(lines)] * 2, strict=True)]
    assert {name for name, _ in found} == {f"class {expected.argmax()}"}
    for _, logits in found:
        np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.slow
def test_the_example_sees_an_image_that_is_stored_sideways_as_it_is_meant(tmp_path: Path) -> None:
    # Of the first 200 networks this one tells best what is stored from what is meant, and the crop from the whole.
    subnet = subnet_of(factories.plain(depth=1), factories.backbone(in_chans=3), seed=83)
    export(subnet, tmp_path / "b", formats=("onnx",), crop_pct=0.8)
    upright = draw_image(tmp_path / "image.png", sideways=True)
    transform = create_transform((3, 16, 16), interpolation="bicubic", crop_pct=0.8, mean=MEAN, std=STD)
    meant, stored = (
        int(logits_of(subnet, transform(image)[None]).argmax())
        for image in (upright, Image.open(tmp_path / "image.png"))
    )
    assert meant != stored
    (tmp_path / f"images/class {meant}").mkdir(parents=True)
    (tmp_path / "image.png").rename(tmp_path / f"images/class {meant}/image.png")
    example = ROOT / "examples" / "score_onnx.py"
    code = f"import runpy, sys; sys.argv = ['', 'b', 'images']; runpy.run_path({str(example)!r}, run_name='__main__')"
    assert run_python(code, tmp_path) == "top-1 100 % of 1 images\n"


def test_the_card_is_one_of_the_hub_with_its_results(tmp_path: Path) -> None:
    small = small_subnet()
    point = point_of(small) | {"test_top1": 88.5}
    export(small, tmp_path / "b", point=point, provenance={"data": "folder:photos"}, license="cc-by-4.0")
    about = ModelCard.load(tmp_path / "b" / "README.md").data
    assert (about.license, about.library_name, about.model_name) == ("cc-by-4.0", "timm", "b")
    (result,) = about.eval_results
    assert (result.task_type, result.dataset_name, result.dataset_split) == (
        "image-classification",
        "folder:photos",
        "test",
    )
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.885)


def test_without_test_images_the_result_is_of_the_split_that_chose(tmp_path: Path) -> None:
    export(small_subnet(), tmp_path / "b")
    (result,) = ModelCard.load(tmp_path / "b" / "README.md").data.eval_results
    assert (result.dataset_split, result.metric_value) == ("search", 0.9125)


def test_the_card_names_classes_input_and_what_is_safe_to_load(tmp_path: Path) -> None:
    export(small_subnet(), tmp_path / "b", formats=("timm", "pt2"))
    card = (tmp_path / "b" / "README.md").read_text()
    size = (tmp_path / "b" / "model.safetensors").stat().st_size / 1e6
    for text in (
        "Classes, by the index of the logit: 0: class 0, 1: class 1",
        f"| timm | model.safetensors | {size:.2f} | reads data only |",
        "| pt2 | model.pt2 |",
        "| can run code of its maker |",
        "The input size is 3 x 16 x 16",
        "`hf download USER/NAME --local-dir b`",
    ):
        assert text in card, text


def test_of_many_classes_the_card_names_the_first(tmp_path: Path) -> None:
    names = [f"kind {i}" for i in range(MOST_CLASSES + 5)]
    small = subnet_of(EVERY_OPERATOR, replace(CLASS_TOKEN, num_classes=len(names)))
    export(small, tmp_path / "b", class_names=names)
    card = (tmp_path / "b" / "README.md").read_text()
    assert f"{MOST_CLASSES - 1}: kind {MOST_CLASSES - 1}, and 5 more." in card
    assert json.loads((tmp_path / "b" / "metrics.json").read_text())["preprocessing"]["class_names"] == names
