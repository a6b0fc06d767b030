"""From a finished run to a model bundle that says what the table says."""

import json
import re
import shutil

import factories
import numpy as np
import pytest
import timm
import torch
from small_runs import command

from nas.arch import cost
from nas.arch.architecture import Architecture
from nas.base.progress import Reporter
from nas.jobs.session import reopen
from nas.latency.onnx_file import load_onnx
from nas.runs.directory import RunDirectory, space_of_run
from nas.runs.front import ParetoFront
from nas.runs.results import results_of
from nas.settings.yaml_file import dump_yaml


def test_exported_model_is_the_one_of_the_table(finished, tmp_path):
    done = command("export", finished.folder, "--pick=knee", "--to", tmp_path / "vit", "--formats=timm,pt2")
    assert done.code == 0, done.stderr
    point = ParetoFront.from_run(finished.folder).knee()
    assert json.loads(done.stdout)["digest"] == point.digest

    model = timm.create_model(f"local-dir:{tmp_path / 'vit'}", pretrained=True).eval()
    backbone = space_of_run(RunDirectory.open(finished.folder)).backbone
    assert sum(p.numel() for p in model.parameters()) == cost.params(point.architecture, backbone)
    assert Architecture.from_json((tmp_path / "vit" / "architecture.json").read_text()) == point.architecture

    images = reopen(finished.folder, Reporter(quiet=True)).data.search
    with torch.inference_mode():
        right = model(images.normalized(slice(None))).argmax(dim=1).numpy() == images.labels
    assert 100 * float(right.sum()) / len(right) == pytest.approx(point.measurement.values["top1"], abs=1e-9)


def test_bundle_carries_the_test_accuracy_that_no_stage_before_has_seen(finished, tmp_path):
    assert "test_top1" not in (finished.folder / "front.json").read_text()
    done = command("export", finished.folder, "--pick=top1", "--to", tmp_path / "vit", "--formats=timm")
    keys = ("test_top1", "test_top1_ci", "test_images")
    metrics = json.loads((tmp_path / "vit" / "metrics.json").read_text())
    assert {key: metrics[key] for key in keys} == {key: json.loads(done.stdout)[key] for key in keys}
    assert f"next      nas validate {tmp_path / 'vit'} --data digits\n" in done.stderr
    low, high = metrics["test_top1_ci"]
    assert low <= metrics["test_top1"] <= high
    assert metrics["test_images"] == 359
    provenance = json.loads((tmp_path / "vit" / "provenance.json").read_text())
    assert provenance["splits"] == RunDirectory.open(finished.folder).manifest.splits


def test_a_bundle_gives_way_to_one_of_its_own_run_and_to_no_other(finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(finished.folder, other)
    for pick in ("knee", "top1"):
        assert (
            command("export", finished.folder, f"--pick={pick}", "--to", tmp_path / "vit", "--formats=timm").code == 0
        )
    before = (tmp_path / "vit" / "metrics.json").read_bytes()
    for words in (("export", other, "--pick=knee"), ("retrain", other, "--pick=knee", "--epochs=1")):
        done = command(*words, "--to", tmp_path / "vit")
        assert done.code == 2
        assert re.search(r"vit holds a bundle of another run: \w+ of r", done.stderr.replace("\n", " ")), done.stderr
        assert "choose a new folder, or remove that one first" in done.stderr
    assert (tmp_path / "vit" / "metrics.json").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "said"), [("top1", "top-1 on the search split"), ("macs", "MACs"), ("params", "param")]
)
def test_export_fails_and_leaves_nothing_where_the_table_says_something_else(finished, tmp_path, key, said):
    folder = tmp_path / "r"
    shutil.copytree(finished.folder, folder)
    front = json.loads((folder / "front.json").read_text())
    for point in front["points"]:
        point[key] = point[key] - 1
    (folder / "front.json").write_text(json.dumps(front))
    done = command("export", folder, "--pick=knee", "--to", tmp_path / "vit", "--formats=timm")
    assert done.code == 1
    assert said in done.stderr
    assert not (tmp_path / "vit").exists()


def test_what_was_measured_and_is_not_on_the_front_is_exported_by_its_digest(finished, tmp_path):
    found = results_of(RunDirectory.open(finished.folder))
    point = found.others[0]
    done = command("export", finished.folder, f"--pick={point.digest[:8]}", "--to", tmp_path / "vit", "--formats=timm")
    assert done.code == 0, done.stderr
    metrics = json.loads((tmp_path / "vit" / "metrics.json").read_text())
    assert (metrics["digest"], metrics["top1"]) == (point.digest, point.measurement.top1)
    assert metrics["latency_ms"] == point.to_dict()["latency_ms"]


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_an_architecture_file_is_exported_with_the_accuracy_of_now_and_no_latency(finished, tmp_path, suffix):
    run = RunDirectory.open(finished.folder)
    known, space = results_of(run).points, space_of_run(run)
    draws = (space.sample(np.random.default_rng(seed)) for seed in range(1000))
    unknown = next(a for a in draws if a.digest not in known)
    file = tmp_path / f"mine{suffix}"
    file.write_text(unknown.to_json() if suffix == ".json" else dump_yaml(unknown.to_dict()))
    done = command(
        "export", finished.folder, f"--pick={file}", "--to", tmp_path / "vit", "--formats=timm", "--license=mit"
    )
    assert done.code == 0, done.stderr
    metrics, card = (
        json.loads((tmp_path / "vit" / "metrics.json").read_text()),
        (tmp_path / "vit" / "README.md").read_text(),
    )
    assert (metrics["digest"], metrics["latency_ms"]) == (unknown.digest, None)
    low, high = metrics["top1_ci"]
    assert 0 <= low <= metrics["top1"] <= high <= 100
    assert 0 <= metrics["test_top1"] <= 100
    assert "| not measured |" in card
    assert "Latency was not measured." in card
    assert "\nlicense: mit\n" in card
    assert str(tmp_path / "mine") not in (tmp_path / "vit" / "provenance.json").read_text()


def test_an_architecture_that_the_supernet_does_not_hold_is_refused(finished, tmp_path):
    (tmp_path / "a.yaml").write_text(dump_yaml(factories.plain(depth=1, embed_dim=8, num_heads=1).to_dict()))
    (tmp_path / "b.yaml").write_text("embed_dim: 8\nlayers: [{no_such: 1}]\n")
    for name, said in (("a.yaml", "not in the space"), ("b.yaml", "no_such")):
        done = command(
            "export", finished.folder, f"--pick={tmp_path / name}", "--to", tmp_path / "vit", "--formats=timm"
        )
        assert (done.code, "Traceback" in done.stderr) == (2, False)
        assert said in done.stderr
    assert not (tmp_path / "vit").exists()


@pytest.mark.slow
def test_eight_bits_are_measured_on_both_splits_and_refused_where_they_lose_too_much(finished, tmp_path, monkeypatch):
    asked = ("export", finished.folder, "--pick=knee", "--to", tmp_path / "vit", "--formats=onnx,onnx-int8")
    done = command(*asked)
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)["int8"]
    data = reopen(finished.folder, Reporter(quiet=True)).data
    with torch.inference_mode():
        runs = [load_onnx(tmp_path / "vit" / name) for name in ("model.onnx", "model_int8.onnx")]
        images = data.search.normalized(slice(None))
        right = [run(images).argmax(dim=1).numpy() == data.search.labels for run in runs]
    assert found["float_top1"] == pytest.approx(100 * right[0].mean(), abs=1e-9)
    assert found["top1"] == pytest.approx(100 * right[1].mean(), abs=1e-9)
    assert found["lost_points"] == pytest.approx(found["float_top1"] - found["top1"], abs=1e-9)
    assert found["lost_points_ci"][0] <= found["lost_points"] <= found["lost_points_ci"][1]
    assert found["calibration_images"] == 256
    metrics = json.loads((tmp_path / "vit" / "metrics.json").read_text())
    assert metrics["test_top1"] - found["test_top1"] == pytest.approx(found["test_lost_points"])
    assert "--formats onnx,onnx-int8" in json.loads((tmp_path / "vit" / "provenance.json").read_text())["commands"][1]

    written = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "vit").iterdir())
    monkeypatch.setattr("nas.jobs.export.count_correct", lambda _, images, **__: np.zeros(len(images), dtype=bool))
    refused = command(*asked, "--max-int8-loss=5")
    assert refused.code == 1
    assert re.search(
        r"too much: top-1 on \d+ images of the search split is 0\.00 %, as float .* allowed are 5", refused.stderr
    )
    assert "--max-int8-loss" in refused.stderr
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "vit").iterdir()) == written
    assert command(*asked, "--max-int8-loss=100").code == 0
