"""`latency` as a user types it, and a search by a profile."""

import csv
import io
import json
from dataclasses import replace

import pytest
from latency_profiles import packed_profile
from small_runs import command, run_arguments, tiny_space

from nas.base.progress import Reporter
from nas.latency.front import check_targets_here
from nas.latency.profile import OURS, Predictor
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.settings.config import RunConfig


def test_a_run_measures_its_front_on_every_target(latency_run):
    front = json.loads((latency_run / "front.json").read_text())
    assert [row["target"] for row in front["latency"]] == [
        "torch-cpu-packed:batch=16",
        "torch-cpu:batch=8,precision=bf16",
    ]
    assert {"load_average", "cpu_mhz"} <= set(front["latency"][0]["machine"]["before"])
    for point in front["points"]:
        assert point["conditions"]["target"] == "torch-cpu-packed"
        assert point["conditions"]["latency_batch_size"] == 16
        assert point["conditions"]["latency_stage"] == "exclusive"
        low, high = point["latency_ci_ms"]
        assert 0 < low <= point["latency_ms"] <= high
        assert point["details"]["latency"]["rounds"] >= 6
        other = point["details"]["latency_targets"]["torch-cpu:batch=8,precision=bf16"]
        assert 0 < other["latency_ci_ms"][0] <= other["latency_ms"]


def test_another_target_is_another_run(latency_run):
    done = command(*run_arguments(latency_run, "--trials=6", "--target=torch-cpu"))
    assert done.code == 2
    assert "evaluate.targets" in done.stderr


def test_latency_of_a_front_is_a_row_a_target_and_architecture(latency_run):
    targets = ("--target=torch-cpu:batch=4", "--target=torch-cpu-packed:batch=4")
    done = command("latency", latency_run, *targets, "--rounds=6", "--format=json")
    assert done.code == 0, done.stderr
    values = json.loads(done.stdout)
    digests = [point.digest for point in ParetoFront.from_run(latency_run).points]
    assert [table["runtime"] for table in values["targets"]] == ["torch-cpu", "torch-cpu-packed"]
    for table in values["targets"]:
        assert table["batch"] == 4
        assert 0 < table["reference_ms"] <= table["reference_slow_ms"]
        assert [point["digest"] for point in table["points"]] == digests
        for point in table["points"]:
            assert set(point["ties"]) <= set(digests) - {point["digest"]}
    assert (latency_run / "front.json").read_text().count("torch-cpu-packed:batch=16")  # nothing was changed


def test_latency_comes_as_a_table_and_as_csv_too(latency_run):
    table = command("latency", latency_run, "--target=torch-cpu:batch=4", "--rounds=3", "--format=table")
    assert "torch-cpu, batch of 4, 8 px, 1 thread" in table.stdout
    assert "load average" in table.stdout
    assert "in slow moments" in table.stdout
    rows = command("latency", "--target=torch-cpu:batch=4", "--rounds=3", "--format=csv", latency_run)
    assert len(list(csv.DictReader(io.StringIO(rows.stdout)))) == len(ParetoFront.from_run(latency_run).points)


def test_an_exported_bundle_is_measured_alone(latency_run, tmp_path):
    assert command("export", latency_run, "--pick=knee", "--to", tmp_path / "vit", "--formats=timm").code == 0
    done = command("latency", tmp_path / "vit", "--rounds=3", "--format=json")
    assert done.code == 0, done.stderr
    values = json.loads((tmp_path / "vit" / "metrics.json").read_text())
    front = json.loads((latency_run / "front.json").read_text())
    (known,) = (point["details"] for point in front["points"] if point["digest"] == values["digest"])
    first, second = (values["timing"][name] for name in ("latency_ms", "latency_ms_2"))
    assert (first["noisy"], first["rounds"]) == (known["latency"]["noisy"], known["latency"]["rounds"])
    assert second["noisy"] == known["latency_targets"]["torch-cpu:batch=8,precision=bf16"]["noisy"]
    assert first["load_average"] == front["latency"][0]["machine"]["before"]["load_average"][0]
    (tmp_path / "vit" / "metrics.json").unlink()
    told = command("latency", tmp_path / "vit")
    assert (told.code, "damaged bundle: no metrics.json" in told.stderr) == (2, True)
    del values["backbone"]
    (tmp_path / "vit" / "metrics.json").write_text(json.dumps(values))
    assert "damaged bundle: backbone is missing" in command("latency", tmp_path / "vit").stderr
    (table,) = json.loads(done.stdout)["targets"]
    (point,) = table["points"]
    assert point["digest"] == ParetoFront.from_run(latency_run).knee().digest
    assert table["repeat_tau"] is None


def test_what_is_no_run_and_no_bundle_is_told(tmp_path):
    done = command("latency", tmp_path)
    assert done.code == 2
    assert done.stderr.startswith("error:")
    assert command("latency", "profile", tmp_path / "none.yaml").code == 2


@pytest.mark.parametrize("arguments", [["--target=torch-xpu"], ["--target=torch-cpu:batch=0"]])
def test_a_wrong_target_is_told_before_anything_is_done(latency_run, tmp_path, arguments):
    done = command("latency", latency_run, *arguments)
    assert done.code == 2
    assert "target" in done.stderr
    done = command(*run_arguments(tmp_path / "new", "--trials=2", *arguments))
    assert done.code == 2
    assert "target" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_profile_is_measured_written_and_judged(tmp_path):
    space = tmp_path / "tiny.yaml"
    run_arguments(tmp_path / "unused")
    file = tmp_path / "profile.json"
    arguments = ("--architectures=14", "--rounds=3", "--target=torch-cpu:batch=2", "--to", file)
    done = command("latency", "profile", space, *arguments, "--format=json")
    values = json.loads(done.stdout)
    assert done.code == (0 if values["usable"] else 1)
    assert values["architectures"] == 14
    assert [row["predictor"] for row in values["predictors"]] == [OURS, "MACs", "mean tokens"]
    assert len(json.loads(file.read_text())["measured"]) == 14


def test_a_search_goes_by_its_profile_and_measures_the_front(tmp_path):
    file = tmp_path / "profile.json"
    packed_profile().write(file)
    folder = tmp_path / "run"
    options = (f"--target=profile:{file}", "--set=search.objectives=[top1, latency_ms]", "--trials=6")
    done = command(*run_arguments(folder, *options))
    assert done.code == 0, done.stderr
    warned = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    assert all("attention is dead" in line for line in warned)  # so short a training
    predictor = Predictor(packed_profile())
    run = RunDirectory.open(folder)
    for trial in run.trials():
        if trial.whole:
            assert trial.measurement.values["latency_ms"] == predictor.predict([trial.architecture])[0]
            assert trial.measurement.conditions.target == packed_profile().name
    for point in ParetoFront.from_run(folder).points:
        assert point.measurement.conditions.target == "torch-cpu-packed"
        assert point.measurement.values["latency_ms"] != predictor.predict([point.architecture])[0]


def test_a_profile_of_another_device_warns_and_one_of_another_backbone_is_refused(tmp_path):
    file = tmp_path / "profile.json"
    packed_profile(device="cpu: a telephone").write(file)
    arguments = run_arguments(tmp_path / "run", f"--target=profile:{file}", "--trials=3")
    done = command(*arguments)
    assert done.code == 0, done.stderr
    assert "measured on cpu: a telephone, this is" in done.stderr
    packed_profile(backbone=replace(tiny_space().backbone, patch_size=4)).write(file)
    done = command(*run_arguments(tmp_path / "other", f"--target=profile:{file}", "--trials=3"))
    assert done.code == 2
    assert "patch_size is 4 in the profile and 2 in the space" in done.stderr


@pytest.mark.parametrize(
    ("backbone", "architecture", "said"),
    [
        ({"num_classes": 10**13}, {}, "num_classes"),
        ({"num_classes": -3}, {}, "num_classes"),
        ({"image_size": "16"}, {}, "str"),
        ({"os": "system"}, {}, "unexpected"),
        ({}, {"embed_dim": 10**13}, "embed_dim"),
        ({}, {"layers": 20_000}, "20,000 layers"),
        ({}, {"num_heads": 10**12}, "its weights take"),
        ({}, {"attention": "__class__"}, "__class__"),
    ],
)
def test_a_strangers_bundle_that_would_fill_the_memory_is_one_message(tmp_path, backbone, architecture, said):
    space = tiny_space()
    values, layers = space.largest().to_dict(), space.largest().to_dict()["layers"]
    values["layers"] = layers[:1] * architecture.get("layers", 1)
    values["embed_dim"] = architecture.get("embed_dim", values["embed_dim"])
    values["layers"][0] |= {k: v for k, v in architecture.items() if k in ("num_heads", "attention")}
    table = {"schema_version": 1, "backbone": space.backbone.to_dict() | backbone}
    (tmp_path / "metrics.json").write_text(json.dumps(table))
    (tmp_path / "architecture.json").write_text(json.dumps(values))
    done = command("latency", tmp_path)
    assert (done.code, done.stdout) == (2, "")
    assert "is a damaged bundle" in done.stderr
    assert said in done.stderr


def test_a_bundle_with_links_to_elsewhere_is_not_read(tmp_path):
    bundle, elsewhere = tmp_path / "bundle", tmp_path / "elsewhere"
    bundle.mkdir()
    elsewhere.write_text("{}")
    for name in ("metrics.json", "architecture.json"):
        (bundle / name).symlink_to(elsewhere)
    done = command("latency", bundle)
    assert (done.code, done.stdout) == (2, "")
    assert "a link to a file outside of its folder" in done.stderr


def test_more_threads_than_cores_are_refused_and_where_a_search_begins_warned_of(latency_run, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    words = "99 threads wait for each other on 2 cores"
    for asked in (("latency", latency_run), ("latency", "profile", "digits", "--to", tmp_path / "profile.json")):
        done = command(*asked, "--target=torch-cpu:threads=99")
        assert (done.code, words in done.stderr) == (2, True)
    said = []
    told = Reporter(quiet=True)
    told.line = lambda *line: said.append(line)
    config = RunConfig(evaluate={"targets": ["torch-cpu:threads=99", "torch-cpu:threads=2"]})
    check_targets_here(config, tiny_space(), told)
    assert said == [("warning", f"target torch-cpu:threads=99: {words}")]
