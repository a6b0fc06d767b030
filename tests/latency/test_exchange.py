"""The front of a run measured on another device: files that go there and come back."""

import json
import subprocess
import sys

import pytest
from small_runs import command

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


def test_results_that_are_missing_or_damaged_are_told(latency_run, tmp_path):
    done = command("latency", "read", tmp_path, latency_run)
    assert (done.code, "measure.py" in done.stderr) == (2, True)
    (tmp_path / "results.json").write_text('{"schema_version": 1, "points": [{}]}')
    done = command("latency", "read", tmp_path, latency_run)
    assert (done.code, "damaged" in done.stderr) == (2, True)
