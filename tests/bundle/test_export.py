"""Law 1 for files: what is exported is what was searched, bit for bit."""

import copy
import importlib.util
import json
import re
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import factories
import numpy as np
import onnx
import pytest
import timm
import torch
from bundles import (
    CLASS_TOKEN,
    EVERY_OPERATOR,
    MEAN,
    MEAN_POOL,
    OPERATORS_MEAN_POOLED,
    ROOT,
    STD,
    export,
    images_for,
    layer,
    logits_of,
    run_python,
    small_subnet,
    subnet_of,
)

from nas.arch import cost
from nas.arch.architecture import Architecture
from nas.arch.backbone import Backbone
from nas.bundle.bundle import ExportReport
from nas.bundle.export import versions
from nas.model.families.vit import Subnet


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportReport, list[str]]:
    """All formats of a network with every operator, and the steps that were announced."""
    steps: list[str] = []
    directory = tmp_path_factory.mktemp("exports") / "my_vit"
    subnet = subnet_of(EVERY_OPERATOR, CLASS_TOKEN)
    return export(subnet, directory, formats=("onnx", "timm", "pt2"), on_step=steps.append), steps


@pytest.fixture(scope="module")
def bundle(exported: tuple[ExportReport, list[str]]) -> Path:
    return exported[0].directory


def check_report(report: ExportReport, architecture: Architecture, backbone: Backbone) -> None:
    assert [row.format for row in report.formats] == ["timm", "pt2", "onnx"]
    assert report.digest == architecture.digest
    for row in report.formats:
        assert set(row.max_delta) == {1, 2, 7}
        assert max(row.max_delta.values()) <= (1e-4 if row.format == "onnx" else 0)
        assert row.size_bytes == (report.directory / row.file).stat().st_size
        assert row.size_bytes > 0.9 * 4 * cost.params(architecture, backbone)
        assert row.seconds > 0


@pytest.mark.slow
def test_every_operator_survives_every_format(exported: tuple[ExportReport, list[str]]) -> None:
    report, steps = exported
    check_report(report, EVERY_OPERATOR, CLASS_TOKEN)
    assert [step.split(":")[0] for step in steps] == ["timm", "pt2", "onnx"] * 2


@pytest.mark.slow
def test_mean_pooled_networks_export_silently(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    subnet = subnet_of(OPERATORS_MEAN_POOLED, MEAN_POOL)
    report = export(subnet, tmp_path / "b", formats=("timm", "pt2", "onnx"))
    check_report(report, OPERATORS_MEAN_POOLED, MEAN_POOL)
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
    assert table["preprocessing"]["exif_orientation"] == "applied"
    assert table["formats"]["pt2"]["max_delta"] == {"1": 0.0, "2": 0.0, "7": 0.0}
    assert json.loads((bundle / "provenance.json").read_text())["seed"] == 3


def test_no_file_names_a_path_of_the_machine_that_wrote_it(bundle: Path) -> None:
    for path in bundle.iterdir():
        content = path.read_bytes()
        assert str(ROOT).encode() not in content, path.name
        assert b"site-packages" not in content, path.name


@pytest.mark.slow
def test_the_onnx_file_says_how_to_use_it(bundle: Path) -> None:
    facts = {entry.key: entry.value for entry in onnx.load(bundle / "model.onnx").metadata_props}
    assert (facts.pop("interpolation"), facts.pop("architecture")) == ("bicubic", EVERY_OPERATOR.digest)
    assert facts.pop("exif_orientation") == "applied"
    assert {key: json.loads(value) for key, value in facts.items()} == {
        "class_names": [f"class {i}" for i in range(10)],
        "crop_pct": 1.0,
        "input_size": [3, 32, 32],
        "mean": list(MEAN),
        "std": list(STD),
    }


@pytest.mark.parametrize("licence", [None, "cc-by-nc-4.0"])
def test_a_licence_is_only_what_the_user_says(licence: str | None, small: Subnet, tmp_path: Path) -> None:
    export(small, tmp_path / "b", license=licence)
    card = (tmp_path / "b" / "README.md").read_text()
    assert re.findall(r"^license: (.*)$", card, flags=re.MULTILINE) == ([licence] if licence else [])
    assert ("not said under which licence" in card) == (licence is None)
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["pretrained_cfg"].get("license") == licence
    assert licence or "apache" not in json.dumps(config) + card


def test_a_bundle_has_no_second_copy_beside_it(bundle: Path) -> None:
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_timm_finds_preprocessing_and_class_names(bundle: Path) -> None:
    model = timm.create_model(f"local-dir:{bundle}", pretrained=True)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 32, 32)
    assert (tuple(config["mean"]), tuple(config["std"])) == (MEAN, STD)
    assert (config["interpolation"], config["crop_pct"]) == ("bicubic", 1.0)
    assert model.pretrained_cfg["label_names"] == [f"class {i}" for i in range(10)]


def test_a_bundle_of_images_stored_larger_says_how_they_were_cropped(small: Subnet, tmp_path: Path) -> None:
    size = small.backbone.image_size
    export(small, tmp_path / "b", crop_pct=size / (size + 8))
    config = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True))
    assert config["crop_pct"] == size / (size + 8)
    assert json.loads((tmp_path / "b" / "metrics.json").read_text())["preprocessing"]["crop_pct"] == size / (size + 8)
    card = " ".join((tmp_path / "b" / "README.md").read_text().split())
    assert f"resized (bicubic, the shorter side to {size + 8} px) and cropped to {size}x{size}" in card


def test_the_number_of_classes_is_no_argument_of_the_model_twice(bundle: Path) -> None:
    """Transformers passes its own, and stops at a second one."""
    config = json.loads((bundle / "config.json").read_text())
    assert "num_classes" not in config["model_args"]
    assert config["num_classes"] == config["model_args"]["backbone"]["num_classes"] == len(config["label_names"])


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


def test_what_timm_loaded_can_be_saved_by_timm_again(bundle: Path, tmp_path: Path) -> None:
    images = images_for(CLASS_TOKEN)
    first = timm.create_model(f"local-dir:{bundle}", pretrained=True, num_classes=5).eval()
    timm.models.save_for_hf(first, str(tmp_path / "tuned"), safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path / 'tuned'}", pretrained=True).eval()
    assert torch.equal(logits_of(again, images), logits_of(first, images))


def test_a_model_from_its_arguments_has_the_classes_of_its_backbone() -> None:
    architecture, backbone = EVERY_OPERATOR.to_dict(), MEAN_POOL.to_dict() | {"class_token": True}
    assert timm.create_model("nas_vit", architecture=architecture, backbone=backbone).num_classes == 7


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
def test_timm_loads_a_bundle_with_torch_timm_and_wrapt(bundle: Path, tmp_path: Path) -> None:
    """As docs/deploy.md says: none of the other dependencies is there."""
    code = f"""
        import re, sys
        from importlib import metadata
        wanted, closed = ["torch", "timm", "wrapt"], set()
        while wanted:
            name = wanted.pop().lower().replace("_", "-")
            if name not in closed:
                closed.add(name)
                needs = metadata.requires(name) or [] if name not in ("nvidia", "triton") else []
                for need in needs:
                    other = re.match("[A-Za-z0-9._-]+", need)[0].lower().replace("_", "-")
                    if "extra ==" not in need:
                        try:
                            metadata.distribution(other)
                        except metadata.PackageNotFoundError:
                            continue
                        wanted.append(other)
        modules = metadata.packages_distributions()
        given = {{top for top, names in modules.items() if {{n.lower().replace("_", "-") for n in names}} & closed}}
        missing = {{top for top in modules if top not in given and top != "nas" and not top.startswith("_")}}
        for top in missing:
            sys.modules[top] = None
        import nas, timm, torch
        model = timm.create_model("local-dir:{bundle}", pretrained=True).eval()
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
        body = timm.create_model("local-dir:{bundle}", features_only=True, out_indices=[0])
        assert len(nas.dense.SimplePyramid(body, 8)(torch.zeros(1, 3, 32, 32))) == 5
        print(sorted({{"pydantic", "optuna", "ray", "pandas", "ruamel", "onnx"}} - missing))
    """
    assert run_python(code, tmp_path, path=ROOT).strip() == "[]"


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


def test_exporting_changes_neither_the_network_nor_the_random_numbers(small: Subnet, tmp_path: Path) -> None:
    before = copy.deepcopy(small.state_dict())
    small.train()
    state = torch.get_rng_state()
    export(small, tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), state)
    assert small.training
    assert all(p.requires_grad for p in small.parameters())
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


@pytest.mark.parametrize(
    ("stem", "first", "words"),
    [
        ("conv", "proj.0", "3x3 convolutions of stride 2 down to the grid of patches"),
        ("overlap", "proj.overlap", "one convolution over overlapping patches, normed"),
    ],
)
def test_a_stem_survives_every_format_and_timm_knows_its_first_convolution(
    tmp_path: Path, stem: str, first: str, words: str
) -> None:
    architecture = Architecture(embed_dim=24, stem=stem, layers=(layer(64), layer(36, reducer="pool")))
    subnet = subnet_of(architecture, CLASS_TOKEN)
    report = export(subnet, tmp_path / "b", formats=("onnx", "timm", "pt2"))
    check_report(report, architecture, CLASS_TOKEN)
    reloaded = timm.create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True).eval()
    images = images_for(CLASS_TOKEN)
    assert torch.equal(logits_of(reloaded, images), logits_of(subnet, images))
    assert reloaded.pretrained_cfg["first_conv"] == f"patch_embed.{first}"
    grey = timm.create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True, in_chans=1)
    ours, theirs = (model.get_parameter(f"patch_embed.{first}.weight") for model in (grey, subnet))
    assert torch.allclose(ours, theirs.sum(1, keepdim=True))
    card = (tmp_path / "b" / "README.md").read_text()
    assert f"24 channels, a stem of {words}, 32x32 pixels" in card


def test_a_pyramid_without_positions_survives_every_format(tmp_path: Path) -> None:
    fixed = replace(MEAN_POOL, positions="none")
    layers = (layer(64), layer(16, reducer="embed", embed_dim=32), layer(4, reducer="pool"))
    architecture = Architecture(embed_dim=24, stem="overlap", layers=layers)
    report = export(subnet_of(architecture, fixed), tmp_path / "b", formats=("onnx", "timm", "pt2"))
    check_report(report, architecture, fixed)


@pytest.mark.parametrize("ffn_rank", [1, 0.5])
def test_convolutions_in_feed_forwards_survive_every_format(tmp_path: Path, ffn_rank: float) -> None:
    fixed = CLASS_TOKEN
    layers = (layer(64, ffn_conv=True), layer(36, reducer="pool", ffn_rank=ffn_rank, ffn_conv=True), layer(36))
    architecture = Architecture(embed_dim=24, layers=layers)
    subnet = subnet_of(architecture, fixed)
    report = export(subnet, tmp_path / "b", formats=("onnx", "timm", "pt2"))
    check_report(report, architecture, fixed)
    assert max(delta for row in report.formats for delta in row.max_delta.values()) < 1e-5
    reloaded = timm.create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True).eval()
    images = images_for(fixed)
    assert torch.equal(logits_of(reloaded, images), logits_of(subnet, images))


@pytest.mark.slow
def test_openvino_computes_the_network(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    subnet = subnet_of(EVERY_OPERATOR, CLASS_TOKEN)
    report = export(subnet, tmp_path / "b", formats=("openvino",))
    assert [row.format for row in report.formats] == ["openvino"]
    assert max(report.formats[0].max_delta.values()) < 1e-4
    assert {path.name for path in (tmp_path / "b").iterdir()} >= {"openvino_model.bin", "openvino_model.xml"}
    weights = tmp_path / "b" / "openvino_model.bin"
    assert weights.stat().st_size == pytest.approx(4 * cost.params(subnet.architecture, CLASS_TOKEN), rel=0.1)


def test_the_provenance_has_the_versions_of_what_wrote_the_files(tmp_path: Path) -> None:
    export(small_subnet(), tmp_path / "b", formats=("timm", "onnx"), provenance={"versions": {"torch": "of the run"}})
    provenance = json.loads((tmp_path / "b" / "provenance.json").read_text())
    assert provenance["versions"] == {"torch": "of the run"}
    written = provenance["written_with"]
    for name in ("torch", "torchvision", "timm", "onnx", "onnxruntime"):
        assert written[name] == metadata.version(name)
    assert "openvino" not in written
    assert "openvino" in versions(["openvino"]) or not importlib.util.find_spec("openvino")
    try:
        assert written["vit-front"] == metadata.version("vit-front")
    except metadata.PackageNotFoundError:
        assert "vit-front" not in written
