"""The script for a card runs on a processor, so that nothing but the card is missing."""

import csv
import json

import pytest
from gpu import MODES, PARTS, main


@pytest.mark.slow
def test_all_but_the_study_run_without_a_card(tmp_path):
    tiny = ["--tiny", "--device=cpu", f"--out={tmp_path}", "--tests", "tests/latency/test_runtimes.py"]
    main([*tiny, "--part", "tests", "--seconds=400"])  # ends when it ends
    main([*tiny, "--part", "training", "latency", "--seconds=20"])  # fills its time; the study has a test of its own
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [line["part"] for line in lines] == ["tests", "training", "latency"]
    assert not [line for line in lines if "error" in line]
    with (tmp_path / "gpu_training.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["mode"] for row in rows} == set(MODES)
    assert all(float(row["images_per_second"]) > 0 for row in rows)
    with (tmp_path / "gpu_latency.csv").open(newline="") as file:
        assert [row["batch"] for row in csv.DictReader(file)] == ["1", "1", "8", "8"]


def test_a_part_that_fails_stops_no_other(tmp_path, monkeypatch):
    def fail(name, seconds, asked):
        raise RuntimeError(name)

    monkeypatch.setattr("gpu.part", fail)
    main(["--tiny", "--device=cpu", f"--out={tmp_path}"])
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [(line["part"], line["error"]) for line in lines] == [(name, f"RuntimeError('{name}')") for name in PARTS]
