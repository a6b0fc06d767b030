"""Law 1 for files: what is exported is what was searched, bit for bit, and nothing wrong stays on disk."""

import copy
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
import timm
import torch
import yaml
from torch import nn

from nas import cost
from nas.architecture import Architecture, AttentionKind, Backbone, Hallucination, LayerChoice, Reducer
from nas.errors import ConfigError, ExportError, RunError
from nas.export import ExportReport, export_bundle, verify_bundle
from nas.model.subnet import Subnet

ROOT = Path(__file__).parents[1]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CLASS_TOKEN = Backbone(image_size=32, patch_size=4, num_classes=10, head_dim=8)
MEAN_POOL = replace(CLASS_TOKEN, class_token=False, num_classes=7)


def layer(num_tokens: int, **changes: Any) -> LayerChoice:
    return LayerChoice(**{"num_tokens": num_tokens, "num_heads": 2, "mlp_ratio": 2, **changes})


EVERY_OPERATOR = Architecture(
    embed_dim=24,
    layers=(
        layer(64, attention=AttentionKind.STATIC),
        layer(64, hallucination_ratio=0.5, hallucination=Hallucination.COPY),
        layer(64, attention=AttentionKind.SHARED),
        layer(36, reducer=Reducer.CONV_POOL, hallucination_ratio=0.5, hallucination=Hallucination.MIX_CONV),
        layer(36, attention=AttentionKind.SHARED),
        layer(16, reducer=Reducer.POOL, num_heads=3, hallucination_ratio=0.7),
        layer(16),
    ),
)
"""64 -> 36 -> 16 tokens: sides 8 -> 6 -> 4, of which neither divides the one before."""

OPERATORS_MEAN_POOLED = Architecture(
    embed_dim=16,
    layers=(
        layer(64),
        layer(49, reducer=Reducer.POOL, hallucination_ratio=0.5),
        layer(9, reducer=Reducer.CONV_POOL, num_heads=3, hallucination_ratio=0.4, hallucination="mix_conv"),
        layer(9, attention=AttentionKind.STATIC, mlp_ratio=1),
    ),
)


def subnet_of(architecture: Architecture, backbone: Backbone, seed: int = 0) -> Subnet:
    """Random weights everywhere, so that no operator is at a start value that hides it."""
    subnet = Subnet(backbone, architecture)
    generator = torch.Generator().manual_seed(seed)
    for parameter in subnet.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return subnet.eval()


def point_of(subnet: Subnet) -> dict[str, Any]:
    """A row of the table for a network."""
    architecture, backbone = subnet.architecture, subnet.backbone
    macs, params = cost.macs(architecture, backbone), cost.params(architecture, backbone)
    return {
        "digest": architecture.digest,
        "top1": 91.25,
        "top1_ci": [88.0, 93.5],
        "macs": macs,
        "flops": 2 * macs,
        "params": params,
        "latency_ms": 1.5,
        "latency_ci_ms": [1.4, 1.6],
        "split": "search",
        "conditions": factories.conditions().to_dict(),
        "architecture": architecture.to_dict(),
    }


def export(subnet: Subnet, directory: Path, **changes: Any) -> ExportReport:
    arguments: dict[str, Any] = {
        "formats": ("timm",),
        "mean": MEAN,
        "std": STD,
        "class_names": [f"class {i}" for i in range(subnet.num_classes)],
        "point": point_of(subnet),
        "provenance": {"run": "test-1", "seed": 3, "commands": ["python search.py run tiny.yaml"]},
    }
    return export_bundle(subnet, directory, **{**arguments, **changes})


def images_for(backbone: Backbone, batch: int = 3) -> torch.Tensor:
    shape = (batch, backbone.in_chans, backbone.image_size, backbone.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(99))


def logits_of(model: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images)


def run_python(code: str, cwd: Path, *options: str, path: Path | None = None) -> str:
    """Standard output of a fresh interpreter, in which warnings are errors."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        **({"PYTHONPATH": str(path)} if path else {}),
    }
    command = [sys.executable, "-W", "error", *options, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All formats of a network with every operator."""
    directory = tmp_path_factory.mktemp("exports") / "my_vit"
    export(subnet_of(EVERY_OPERATOR, CLASS_TOKEN), directory, formats=("onnx", "timm", "pt2"))
    return directory


@pytest.fixture
def small() -> Subnet:
    return subnet_of(factories.plain(depth=1), factories.backbone(in_chans=3))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "backbone"),
    [(EVERY_OPERATOR, CLASS_TOKEN), (OPERATORS_MEAN_POOLED, MEAN_POOL)],
    ids=["class token", "mean pool"],
)
def test_every_operator_survives_every_format(
    architecture: Architecture, backbone: Backbone, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    subnet = subnet_of(architecture, backbone)
    steps: list[str] = []
    report = export(subnet, tmp_path / "b", formats=("timm", "pt2", "onnx"), on_step=steps.append)

    assert [r.format for r in report.formats] == ["timm", "pt2", "onnx"]
    assert report.digest == architecture.digest
    for row in report.formats:
        assert set(row.max_delta) == {1, 2, 7}
        assert max(row.max_delta.values()) <= (1e-4 if row.format == "onnx" else 0)
        assert (
            row.size_bytes
            == (tmp_path / "b" / row.file).stat().st_size
            > 4 * cost.params(architecture, backbone) * 0.9
        )
        assert row.seconds > 0
    assert [step.split(":")[0] for step in steps] == ["timm", "pt2", "onnx"] * 2
    assert capfd.readouterr() == ("", "")


def test_every_random_architecture_reloads_bit_for_bit(tmp_path: Path) -> None:
    backbone = factories.backbone()
    images = images_for(backbone)
    for i, architecture in enumerate(factories.distinct_architectures(6, seed=5)):
        subnet = subnet_of(architecture, backbone, seed=i)
        directory = tmp_path / architecture.digest
        export(subnet, directory, mean=[0.5], std=[0.5])
        reloaded = timm.create_model(f"local-dir:{directory}", pretrained=True).eval()
        assert torch.equal(logits_of(reloaded, images), logits_of(subnet, images))


def test_a_bundle_holds_what_it_says(bundle: Path) -> None:
    names = {path.name for path in bundle.iterdir()}
    assert names == {
        "architecture.json", "metrics.json", "provenance.json", "README.md",
        "config.json", "model.safetensors", "model.pt2", "model.onnx",
    }  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in bundle.iterdir()} == {0o644}
    assert bundle.stat().st_mode & 0o777 == 0o755
    assert Architecture.from_json((bundle / "architecture.json").read_text()) == EVERY_OPERATOR

    table = json.loads((bundle / "metrics.json").read_text())
    macs = cost.macs(EVERY_OPERATOR, CLASS_TOKEN)
    assert (table["digest"], table["macs"], table["flops"]) == (EVERY_OPERATOR.digest, macs, 2 * macs)
    assert table["preprocessing"]["mean"] == list(MEAN)
    assert table["formats"]["pt2"]["max_delta"] == {"1": 0.0, "2": 0.0, "7": 0.0}
    assert json.loads((bundle / "provenance.json").read_text())["seed"] == 3


def test_no_file_names_a_path_of_the_machine_that_wrote_it(bundle: Path) -> None:
    for path in bundle.iterdir():
        content = path.read_bytes()
        assert str(ROOT).encode() not in content, path.name
        assert b"site-packages" not in content, path.name


def test_a_bundle_has_no_second_copy_beside_it(bundle: Path) -> None:
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_timm_finds_preprocessing_and_class_names(bundle: Path) -> None:
    model = timm.create_model(f"local-dir:{bundle}", pretrained=True)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 32, 32)
    assert (tuple(config["mean"]), tuple(config["std"])) == (MEAN, STD)
    assert (config["interpolation"], config["crop_pct"]) == ("bicubic", 1.0)
    assert model.pretrained_cfg["label_names"] == [f"class {i}" for i in range(10)]


def test_another_number_of_classes_keeps_the_features(bundle: Path) -> None:
    ten = timm.create_model(f"local-dir:{bundle}", pretrained=True).eval()
    five = timm.create_model(f"local-dir:{bundle}", pretrained=True, num_classes=5).eval()
    images = images_for(CLASS_TOKEN)
    assert logits_of(five, images).shape == (3, 5)
    assert torch.equal(logits_of(five.forward_features, images), logits_of(ten.forward_features, images))


def test_the_classifier_can_be_reset(bundle: Path) -> None:
    model = timm.create_model(f"local-dir:{bundle}", pretrained=True).eval()
    images = images_for(CLASS_TOKEN)
    features = logits_of(lambda x: model.forward_head(model.forward_features(x), pre_logits=True), images)
    model.reset_classifier(4)
    assert (logits_of(model, images).shape, model.num_classes) == ((3, 4), 4)
    model.reset_classifier(0)
    assert torch.equal(logits_of(model, images), features)


@pytest.mark.slow
@pytest.mark.parametrize("imports", ["import nas, timm", "import timm; import nas"])
def test_timm_loads_a_bundle_whichever_is_imported_first(imports: str, bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images_for(CLASS_TOKEN).numpy())
    code = f"""
        {imports}
        import numpy, torch
        model = timm.create_model("local-dir:{bundle}", pretrained=True).eval()
        with torch.no_grad():
            numpy.save("y.npy", model(torch.from_numpy(numpy.load("x.npy"))).numpy())
    """
    assert run_python(code, tmp_path, path=ROOT) == ""
    expected = logits_of(subnet_of(EVERY_OPERATOR, CLASS_TOKEN), images_for(CLASS_TOKEN)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_pt2_and_onnx_need_nothing_of_this_package(bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images_for(CLASS_TOKEN, batch=5).numpy())
    code = f"""
        import sys
        import numpy, onnxruntime, torch
        x = numpy.load("x.npy")
        model = torch.export.load("{bundle}/model.pt2").module()
        with torch.no_grad():
            numpy.save("pt2.npy", model(torch.from_numpy(x)).numpy())
        session = onnxruntime.InferenceSession("{bundle}/model.onnx", providers=["CPUExecutionProvider"])
        assert session.get_inputs()[0].shape == ["batch", 3, 32, 32], session.get_inputs()[0].shape
        numpy.save("onnx.npy", session.run(["logits"], {{"images": x}})[0])
        assert not [name for name in sys.modules if name.split(".")[0] in ("nas", "timm")]
    """
    run_python(code, tmp_path, "-I")
    expected = logits_of(subnet_of(EVERY_OPERATOR, CLASS_TOKEN), images_for(CLASS_TOKEN, batch=5)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "pt2.npy"), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "onnx.npy"), expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_snippets_of_the_model_card_run(bundle: Path) -> None:
    card = (bundle / "README.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(snippets) == 3
    shapes = "".join(snippet + "print(tuple(logits.shape))\n" for snippet in snippets)
    assert run_python(shapes, bundle.parent, path=ROOT).splitlines() == ["(1, 10)"] * 3


def test_the_model_card_states_numbers_units_and_origin(bundle: Path) -> None:
    card = (bundle / "README.md").read_text()
    front_matter = yaml.safe_load(card.split("---")[1])
    assert (front_matter["library_name"], front_matter["license"]) == ("timm", "apache-2.0")
    macs = cost.macs(EVERY_OPERATOR, CLASS_TOKEN)
    for text in (
        "# my_vit",
        EVERY_OPERATOR.digest,
        "| top-1 | 91.25 | 88 to 93.5 | % | search split, 144 images |",
        f"| MACs | {macs:,} |",
        f"| FLOPs | {2 * macs:,} | | FLOPs/image | 2 x MACs |",
        "| latency | 1.5 | 1.4 to 1.6 | ms/batch | torch-cpu, batch size 64, threads 1 |",
        "mean 0.4, 0.5, 0.6 and standard deviation 0.2, 0.25, 0.3",
        "python search.py run tiny.yaml",
        "optimistic",
    ):
        assert text in card, text


def test_a_test_result_is_on_the_card(small: Subnet, tmp_path: Path) -> None:
    point = point_of(small) | {"test_top1": 88.5, "test_top1_ci": [85.0, 91.0], "test_images": 359}
    export(small, tmp_path / "b", point=point)
    card = (tmp_path / "b" / "README.md").read_text()
    assert "| top-1, test | 88.5 | 85 to 91 | % | test split, 359 images |" in card


def test_exporting_changes_neither_the_network_nor_the_random_numbers(small: Subnet, tmp_path: Path) -> None:
    before = copy.deepcopy(small.state_dict())
    small.train()
    state = torch.get_rng_state()
    export(small, tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), state)
    assert small.training
    assert all(p.requires_grad for p in small.parameters())
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_verify_accepts_what_export_wrote(bundle: Path) -> None:
    report = verify_bundle(bundle)
    assert [row.format for row in report.formats] == ["timm", "pt2", "onnx"]
    assert report.to_dict()["files"][1]["max_delta"] == {"1": 0.0, "2": 0.0, "7": 0.0}


@pytest.mark.parametrize(
    ("key", "wrong", "message"),
    [
        ("params", lambda n: n + 1, "timm: .* parameters, the table has"),
        ("macs", lambda n: n + 1, "FLOPs counted, the table's .* MACs make"),
        ("digest", lambda _: "0123456789ab", "the table 0123456789ab"),
        ("params", lambda n: 4 * n, r"model\.safetensors: .* bytes for .* fp32 parameters"),
    ],
)
def test_a_table_that_differs_leaves_nothing_behind(
    key: str, wrong: Callable[[Any], Any], message: str, small: Subnet, tmp_path: Path
) -> None:
    point = point_of(small)
    with pytest.raises(ExportError, match=message):
        export(small, tmp_path / "b", point=point | {key: wrong(point[key])})
    assert list(tmp_path.iterdir()) == []


def test_all_differences_are_listed_at_once(small: Subnet, tmp_path: Path) -> None:
    point = point_of(small)
    with pytest.raises(ExportError, match="3 differences") as caught:
        export(
            small,
            tmp_path / "b",
            point=point | {"macs": 1, "params": point["params"] - 1, "digest": "f" * 12},
        )
    assert "1 MACs make 2" in caught.value.message


def test_a_file_that_changes_while_it_is_written_is_noticed(small: Subnet, tmp_path: Path) -> None:
    def tamper(step: str) -> None:
        if step == "timm: reload and compare":
            (path,) = tmp_path.glob(".b.*.partial/model.safetensors")
            path.write_bytes(path.read_bytes()[:-1] + b"\x01")

    with pytest.raises(ExportError, match=r"model\.safetensors: the content is not what was written"):
        export(small, tmp_path / "b", on_step=tamper)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_gives_nan_is_not_exported(small: Subnet, tmp_path: Path) -> None:
    with torch.no_grad():
        small.head.bias[0] = float("nan")
    with pytest.raises(ExportError, match="timm: logits differ by nan at batch size 1"):
        export(small, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def rewrite(directory: Path, file: str, change: Callable[[Any], Any]) -> None:
    path = directory / file
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.fixture
def two_formats(small: Subnet, tmp_path: Path) -> Path:
    export(small, tmp_path / "b", formats=("timm", "pt2"))
    return tmp_path / "b"


def test_verify_sees_weights_that_differ_between_formats(
    small: Subnet, two_formats: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        small.head.bias[0] += 0.25
    export(small, tmp_path / "other")
    content = (tmp_path / "other" / "model.safetensors").read_bytes()
    (two_formats / "model.safetensors").write_bytes(content)
    facts = json.loads((tmp_path / "other" / "metrics.json").read_text())["formats"]["timm"]
    rewrite(two_formats, "metrics.json", lambda t: t | {"formats": t["formats"] | {"timm": facts}})

    with pytest.raises(ExportError, match=r"pt2: logits differ by 0\.25 at batch size 1, allowed are 0"):
        verify_bundle(two_formats)
    assert (two_formats / "model.pt2").exists()


def test_verify_loads_no_file_that_somebody_else_wrote(two_formats: Path) -> None:
    (two_formats / "model.pt2").write_bytes(b"not a model")
    (two_formats / "config.json").unlink()
    with pytest.raises(ExportError) as caught:
        verify_bundle(two_formats)
    assert "model.pt2: the content is not what was written" in caught.value.message
    assert "config.json: missing" in caught.value.message


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "metrics.json").unlink(),
        lambda folder: (folder / "architecture.json").write_text("{}"),
        lambda folder: (folder / "metrics.json").write_text("[1"),
        lambda folder: rewrite(folder, "metrics.json", lambda t: t | {"schema_version": 99}),
        lambda folder: rewrite(folder, "metrics.json", lambda t: t | {"formats": {}}),
        lambda folder: rewrite(folder, "metrics.json", lambda t: t | {"formats": {"tflite": {}}}),
        lambda folder: rewrite(folder, "metrics.json", lambda t: t | {"macs": "many"}),
        lambda folder: rewrite(folder, "metrics.json", lambda t: t | {"backbone": {"image_size": 16}}),
    ],
)
def test_verify_refuses_a_damaged_bundle(damage: Callable[[Path], None], two_formats: Path) -> None:
    damage(two_formats)
    with pytest.raises(ExportError, match="no bundle, or a damaged one"):
        verify_bundle(two_formats)


def test_an_earlier_bundle_is_replaced_and_survives_a_failure(small: Subnet, two_formats: Path) -> None:
    before = (two_formats / "model.safetensors").read_bytes()
    with pytest.raises(ExportError):
        export(small, two_formats, point=point_of(small) | {"macs": 1})
    assert (two_formats / "model.safetensors").read_bytes() == before
    assert (two_formats / "model.pt2").exists()

    with torch.no_grad():
        small.head.bias[0] += 1
    export(small, two_formats)
    assert (two_formats / "model.safetensors").read_bytes() != before
    assert not (two_formats / "model.pt2").exists()
    assert [path.name for path in two_formats.parent.iterdir()] == ["b"]


def test_a_folder_with_anything_else_is_refused(small: Subnet, two_formats: Path, tmp_path: Path) -> None:
    (two_formats / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"holds something else: notes\.txt"):
        export(small, two_formats)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="is a file"):
        export(small, tmp_path / "file")
    with pytest.raises(ExportError, match="file"):
        export(small, tmp_path / "file" / "below")
    assert (two_formats / "notes.txt").read_text() == "mine"


def test_an_empty_folder_and_missing_parents_are_fine(small: Subnet, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export(small, tmp_path / "empty")
    export(small, tmp_path / "a" / "b c#1")
    model = timm.create_model(f"local-dir:{tmp_path / 'a' / 'b c#1'}", pretrained=True)
    assert model.architecture == small.architecture


def test_unknown_formats_are_named_with_the_known_ones(small: Subnet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown format 'onx', 'tflite'") as caught:
        export(small, tmp_path / "b", formats=("timm", "onx", "tflite"))
    assert caught.value.hint == 'did you mean "onnx"? known formats: timm, pt2, onnx'
    with pytest.raises(ConfigError, match="no format"):
        export(small, tmp_path / "b", formats=())
    assert list(tmp_path.iterdir()) == []


def test_arguments_that_do_not_fit_are_listed_together(small: Subnet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        export(small, tmp_path / "b", mean=[0.5], class_names=["a"], point={"digest": "x"})
    assert caught.value.message == (
        "nothing was exported: mean has 1 values for 3 channels; 1 class names for 10 classes; "
        "the row of the table lacks macs, params"
    )
    with pytest.raises(RunError, match="JSON cannot hold it"):
        export(small, tmp_path / "b", provenance={"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_onnx_package_is_named(
    small: Subnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="onnx and onnxruntime") as caught:
        export(small, tmp_path / "b", formats=("timm", "onnx"))
    assert caught.value.hint == "pip install onnx onnxruntime, or leave onnx out of the formats"
    assert list(tmp_path.iterdir()) == []
    assert export(small, tmp_path / "b", formats=("timm",)).digest == small.architecture.digest
