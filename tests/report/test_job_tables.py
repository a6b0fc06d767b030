"""What long commands found, in words; the values are those of the commands' JSON."""

import re

import pytest
from report_runs import made_trials, make_run, retrained, row_with, text_of, trust_found

from nas.report.job_tables import (
    export_tables,
    forecast_table,
    redundancy_table,
    retrain_table,
    training_rows,
    trust_table,
    validate_table,
)

UP = [60.0, 70.0, 75.0, 80.0, 90.0, 95.0]


def test_trust_names_every_number_with_its_interval_and_conditions():
    text = text_of(trust_table(trust_found(UP, UP, UP)))
    assert re.search(r"inherited top-1 +1\.00 \[1\.00, 1\.00\]", text)
    for words in (
        "MACs",
        "mean token count",
        "another seed (ceiling)",
        "gap: inherited is",
        "287 images of the search",
    ):
        assert words in text, words
    assert "failed" not in text
    assert "1 training failed" in text_of(trust_table(trust_found(UP, UP, failed=[{"digest": "x"}])))


@pytest.fixture
def found(tmp_path):
    """What `retrain` wrote."""
    run = retrained(make_run(tmp_path / "r", made_trials(8)))
    (finding,) = run.findings().values()
    return {**finding, "run": "r", "failed": []}


def test_retrain_shows_both_splits_of_both_networks_with_their_spread(found):
    text = text_of(retrain_table(found))
    for row in (found["picked"], *found["baselines"]):
        line = row_with(text, f"({row['digest']})")
        for key in ("top1", "test_top1"):
            assert f"{row[key]:.2f} ± {row[f'{key}_sd']:.2f}" in line
            assert f"{row[f'inherited_{key}']:.2f}" in line
    assert "from random weights, 30 epochs on the train split, 2 seeds: mean ± standard deviation" in text
    assert "failed" not in text


def test_retrain_of_one_seed_has_no_spread_and_says_what_failed(found):
    alone = {**found["picked"], "top1_sd": None, "test_top1_sd": None}
    one = {**found, "picked": alone, "baselines": [], "num_seeds": 1, "epochs": 1, "failed": [{}]}
    text = text_of(retrain_table({**one, "from": "inherited"}))
    assert "±" not in text
    assert "from the inherited weights, 1 epoch on the train split, 1 seed" in text
    assert "1 of the trainings failed" in text


def test_trainings_are_rows_with_the_values_of_their_seed(found):
    rows = training_rows(found)
    assert [(row["name"], row["seed"]) for row in rows] == [
        ("knee", 0),
        ("knee", 1),
        ("plain ViT", 0),
        ("plain ViT", 1),
    ]
    assert [row["test_top1"] for row in rows[:2]] == found["picked"]["test_top1_by_seed"]


FORECAST = {
    **{"start_s": 3.2, "train_s": 4000.0, "search_s": 77.0, "measure_s": 33.0, "total_s": 4113.2},
    **{"steps": 1200, "step_s": 0.0123, "steps_timed": 9, "trials": 200, "evaluation_s": 0.1234},
    **{"evaluations_timed": 5, "parallelism": 1.9, "front_size": 12, "forecast_s": 12.3, "notes": ["a note"]},
    **{f"memory{part}_bytes": 1.5e9 for part in ("", "_driver", "_workers", "_weights", "_images")},
    **{f"disk{part}_bytes": 5e6 for part in ("", "_checkpoints", "_trials", "_finalists")},
    **{"finalists": 16, "finalists_s": 120.0, "finalist_epochs": 7},
}


def test_a_forecast_has_a_row_a_stage_with_its_time():
    text = text_of(forecast_table(FORECAST))
    for stage, time in (("training", "1:06:40"), ("search", "1:17"), ("finalists", "2:00"), ("final latency", "0:33")):
        assert row_with(text, f"  {stage} ").removeprefix(f"  {stage}").split()[0] == time
    assert row_with(text, "total").split() == ["total", "1:08:33", "hours:minutes:seconds"]
    short = text_of(forecast_table({**FORECAST, "total_s": 2039.0}))
    assert row_with(short, "total").split() == ["total", "33:59", "minutes:seconds"]
    assert "at most at one time; this process at its own peak 1,500 MB, workers at theirs" in " ".join(text.split())
    assert "16 candidates trained on, the better half of them for 7 epochs" in row_with(text, "  finalists")
    assert "1,500 MB" in row_with(text, "  memory")
    assert text.rstrip().endswith("by doing some of the steps and trials; a note")


def test_a_forecast_leaves_out_what_is_not_to_be_done():
    text = text_of(forecast_table({**FORECAST, "steps": 0, "trials": 0, "finalists": 0, "measure_s": 0.0, "notes": []}))
    assert "nothing is left to train" in text
    assert "search" not in text
    assert "finalists" not in text
    assert "final latency" not in text


def test_redundancy_has_a_row_a_layer_and_a_dash_where_there_is_nothing_to_compare():
    names = ("dispersion_nats", "static_change_nats", "similarity_to_previous", "similarity_of_heads")
    rows = [{"layer": i, **dict.fromkeys(names, 0.5), "effective_rank": 12.34, "tokens": 64} for i in (0, 1)]
    rows[0]["similarity_to_previous"] = None
    text = text_of(redundancy_table({"source": "r", "images": 10, "split": "train", "layers": rows}))
    assert row_with(text, "  -  ").split() == ["0", "0.500", "0.500", "-", "0.50", "12.3", "64"]


@pytest.mark.parametrize(("runtime", "told"), [("onnx", "onnx, fp32, cpu"), ("onnx-int8", "onnx-int8, cpu")])
def test_a_validation_in_eight_bits_does_not_say_fp32(runtime, told):
    top1 = {"top1": 50.0, "top1_low": 40.0, "top1_high": 60.0}
    found = {"bundle": "vit", "data": "digits", "split": "test", "images": 10, "top1": 50.0, "top1_ci": [40.0, 60.0]}
    found |= {"classes": [{"class": "a", "images": 10, **top1}], "chance": 10.0, "card_test_top1": 51.0, "notes": []}
    found |= {"runtime": runtime, "device": "cpu", "runtime_version": "onnxruntime 1.32", "seed": 0}
    found["card_precision"] = "fp32" if runtime == "onnx" else "int8"
    text = text_of(validate_table(found))
    assert f"{told}, onnxruntime 1.32, seed 0" in text
    assert f"on its card 51.0 % (test, {found['card_precision']})" in text


def test_an_export_has_a_row_a_file_with_its_largest_difference():
    files = [
        {"format": name, "file": f"model.{name}", "size_bytes": 1_234_567, "seconds": 2.0, "max_delta": deltas}
        for name, deltas in (("timm", {"1": 0.0, "2": 0.0}), ("onnx", {"1": 1e-7, "2": 3.4e-6}))
    ]
    test = {"test_top1": 91.26, "test_top1_ci": [88.6, 94.3], "test_images": 359}
    tested = text_of(export_tables({"digest": "0123456789ab", "directory": "vit", "files": files, **test}))
    assert "test top-1: 91.3 % (95 % interval 88.6 to 94.3), 359 images" in tested
    text = text_of(export_tables({"digest": "0123456789ab", "directory": "vit", "files": files}))
    cells = [re.split(r"[ │]+", row_with(text, f"model.{name}").strip(" │")) for name in ("timm", "onnx")]
    assert cells == [["timm", "model.timm", "1,235", "0", "2.0"], ["onnx", "model.onnx", "1,235", "3.4e-06", "2.0"]]
    assert "batches of 1, 2" in text
    assert "int8" not in text
    int8 = {"top1": 90.0, "top1_ci": [85.0, 94.0], "lost_points": 0.5, "lost_points_ci": [-0.25, 1.25]}
    int8 |= {"test_top1": 88.0, "test_top1_ci": [84.0, 91.0], "test_lost_points": -1.0}
    int8 |= {"test_lost_points_ci": [-2.0, 0.5], "latency_ratio": 0.6, "latency_ratio_quartiles": [0.55, 0.8]}
    int8 |= {"latency_batch_size": 64, "latency_threads": 1, "latency_target": "ort int8", "latency_device": "cpu: X"}
    text = text_of(export_tables({"digest": "0123456789ab", "directory": "vit", "files": files, "int8": int8}))
    rows = [" ".join(row_with(text, f" {split} ").split()) for split in ("search", "test")]
    assert rows == [
        "search 90.50 90.00 (85.00 to 94.00) 0.50 (-0.25 to 1.25)",
        "test 87.00 88.00 (84.00 to 91.00) -1.00 (-2.00 to 0.50)",
    ]
    assert "time over float 0.60 (0.55 to 0.80): median, quartiles" in text
    assert "ort int8, batch of 64, threads: 1, cpu: X" in text
