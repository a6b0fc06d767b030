"""The front of a run measured on another device: files that go there and come back."""

import json
import shutil
import subprocess
import sys

import pytest
from small_runs import command

from nas.latency.exchange import SOURCE
from nas.runs.front import ParetoFront


@pytest.mark.slow
def test_a_front_is_measured_by_a_process_without_this_package(latency_run, tmp_path):
    folder = tmp_path / "packed"
    done = command("latency", "pack", latency_run, "--to", folder, "--batch=4", "--format=json")
    assert done.code == 0, done.stderr
    digests = [point.digest for point in ParetoFront.from_run(latency_run).points]
    assert [model["digest"] for model in json.loads(done.stdout)["models"]] == digests
    blocked = tmp_path / "blocked"
    for name in ("nas", "torch", "timm", "scipy"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text(f"raise ImportError('{name} is not on this device')")
    away = subprocess.run(
        [sys.executable, folder / "measure.py", "--rounds=6", "--most-rounds=8"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(blocked), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert away.returncode == 0, away.stderr
    done = command("latency", "read", folder, latency_run, "--format=json")
    assert done.code == 0, done.stderr
    values = json.loads(done.stdout)
    assert [row["digest"] for row in values["points"]] == digests
    assert values["batch"] == 4
    assert values["missing"] == 0
    for row in values["points"]:
        assert 0 < row["latency_ci_ms"][0] <= row["latency_ms"] <= row["latency_ci_ms"][1]
        assert row["latency_here_ms"] > 0
    assert "on " in command("latency", "read", folder, latency_run, "--format=table").stdout
    assert command("latency", "pack", latency_run, "--to", folder).code == 2  # it is there


def results(folder, latency_run, **changes):
    """Results of a device, made up, in a folder."""
    point = {"latency_ms": 3.0, "latency_ci_ms": [2.0, 4.0], "passes_ms": [3.0, 3.0], "rounds": 6, "noisy": True}
    digests = [point.digest for point in ParetoFront.from_run(latency_run).points]
    shared = {"device": "Pi", "system": "Linux", "runtime": "onnxruntime 1.32 CPU", "batch": 16, "threads": 4}
    values = {"schema_version": 1, "run": latency_run.name, **shared, "reference_ms": 5.0, "load_average": None}
    values |= {"points": [{"digest": digest, **point} for digest in digests], **changes}
    (folder / "results.json").write_text(json.dumps(values))


def weights_of(run):
    return [ParetoFront.from_run(run).points[0].measurement.conditions.weights_digest]


def test_a_pack_names_the_weights_and_results_of_others_are_refused(latency_run, tmp_path):
    done = command("latency", "pack", latency_run, "--to", tmp_path / "packed", "--format=json")
    assert json.loads(done.stdout)["weights"] == weights_of(latency_run)
    results(tmp_path, latency_run, weights=["feedfeedfeed"], run="digits-7")
    done = command("latency", "read", tmp_path, latency_run)
    assert done.code == 2
    assert "is of the run digits-7: its supernet is feedfeedfeed" in " ".join(done.stderr.split())
    results(tmp_path, latency_run, weights=weights_of(latency_run), run="renamed")
    done = command("latency", "read", tmp_path, latency_run, "--format=json")
    assert (done.code, json.loads(done.stdout)["notes"], "warning" in done.stderr) == (0, [], False)


@pytest.mark.parametrize("name", ["digits-7", None])
def test_results_without_weights_warn_where_the_run_has_another_name(latency_run, tmp_path, name):
    results(tmp_path, latency_run, run=name or latency_run.name)
    done = command("latency", "read", tmp_path, latency_run, "--format=json")
    assert done.code == 0, done.stderr
    assert len(json.loads(done.stdout)["notes"]) == (name is not None)
    assert ("of a run named digits-7" in " ".join(done.stderr.split())) == (name is not None)


def test_what_was_measured_here_comes_with_its_interval_its_noise_and_its_runtime(latency_run, tmp_path):
    results(tmp_path, latency_run, weights=weights_of(latency_run))
    values = json.loads(command("latency", "read", tmp_path, latency_run, "--format=json").stdout)
    assert values["here"]["runtime"] == "torch-cpu-packed"
    assert (values["here"]["batch"], values["here"]["threads"]) == (16, 1)
    for row, point in zip(values["points"], ParetoFront.from_run(latency_run).points, strict=True):
        alone = point.measurement.latency["latency_ms"]
        assert (row["latency_here_ci_ms"], row["noisy_here"]) == (list(alone.interval), alone.noisy)


@pytest.fixture
def one_pack(tmp_path):
    """A pack of two files that multiply, and its script."""
    import onnx
    from onnx import TensorProto, helper

    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3, 4, 4]) for name in ("images", "logits")]
    node = helper.make_node("Mul", ["images", "images"], ["logits"])
    model = helper.make_model(helper.make_graph([node], "g", sides[:1], sides[1:]))
    model.ir_version = 8
    model.opset_import[0].version = 18
    for name in ("reference.onnx", "aaaa.onnx"):
        onnx.save(model, tmp_path / name)
    listed = {"run": "r", "weights": ["w"], "batch": 2, "image_shape": [3, 4, 4]}
    listed |= {"reference": {"digest": "bbbb", "file": "reference.onnx"}}
    listed |= {"models": [{"digest": "aaaa", "file": "aaaa.onnx"}]}
    (tmp_path / "models.json").write_text(json.dumps(listed))
    shutil.copy(SOURCE, tmp_path / "measure.py")
    return tmp_path


def measured(folder, *words):
    script = [sys.executable, folder / "measure.py", "--rounds=12", "--most-rounds=12", *words]
    return subprocess.run(script, capture_output=True, text=True, check=False)


def test_the_script_prints_figures_and_a_log_of_lines(one_pack):
    done = measured(one_pack)
    assert done.returncode == 0, done.stderr
    found = json.loads((one_pack / "results.json").read_text())
    (point,) = found["points"]
    low, high = point["latency_ci_ms"]
    assert f"aaaa  {point['latency_ms']:.3f} ms / batch ({low:.3f} to {high:.3f})" in done.stdout
    assert found["weights"] == ["w"]
    assert done.stderr.splitlines() == ["round 1:   1 of 1 models", "round 11:   1 of 1 models", "12 rounds"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda pack: (pack / "aaaa.onnx").write_bytes((pack / "aaaa.onnx").read_bytes()[:40]), "aaaa.onnx: onnxr"),
        (lambda pack: (pack / "aaaa.onnx").unlink(), "aaaa.onnx: missing"),
        (lambda pack: (pack / "models.json").unlink(), "models.json: missing"),
        (lambda pack: (pack / "models.json").write_text("{"), "models.json: damaged"),
        (lambda pack: (pack / "models.json").write_text('{"batch": 1}'), "'image_shape' is missing"),
    ],
)
def test_the_script_says_in_a_line_how_a_pack_is_damaged(one_pack, damage, told):
    damage(one_pack)
    done = measured(one_pack)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert told in first
    assert second.startswith("hint: ")


def test_results_that_are_missing_or_damaged_are_told(latency_run, tmp_path):
    done = command("latency", "read", tmp_path, latency_run)
    assert (done.code, "measure.py" in done.stderr) == (2, True)
    (tmp_path / "results.json").write_text('{"schema_version": 1, "points": [{}]}')
    done = command("latency", "read", tmp_path, latency_run)
    assert (done.code, "damaged" in done.stderr) == (2, True)
