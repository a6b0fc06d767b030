"""Trainings of architectures alone: each done once, its record kept, read and never replaced when damaged."""

import json
import shutil

import pytest
from small_runs import command, search_process
from trust_records import CHEAP, outline, trainings

from nas.runs.training_log import Course

PATIENCE_S = 500

# --- the command ---


def test_the_same_command_trains_nothing_again_and_larger_ones_only_what_is_new(trusted_run, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(trusted_run[0], folder)
    before = trainings(folder)
    again = command("trust", folder, *CHEAP)
    assert json.loads(again.stdout) == trusted_run[1]
    assert "10 trainings, 10 done already" in again.stderr
    assert trainings(folder) == before

    more = command("trust", folder, "--architectures=6", "--seeds=3", "--epochs=1", "--workers=0")
    assert "18 trainings, 10 done already" in more.stderr
    after = trainings(folder)
    assert {name: after[name] for name in before} == before
    assert len(after) == 18
    rows = json.loads(more.stdout)["architectures"]
    for row, same in zip(rows, trusted_run[1]["architectures"], strict=False):
        assert row["digest"] == same["digest"]
        assert row["stand_alone_top1_by_seed"][:2] == same["stand_alone_top1_by_seed"]


def test_an_architecture_whose_training_failed_is_left_out_and_counted(trusted_run, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(trusted_run[0], folder)
    victim = sorted((folder / "trust").glob("*.json"))[0]
    record = json.loads(victim.read_text())
    victim.write_text(json.dumps(record | {"top1": None, "error": "loss is not finite"}))
    done = command("trust", folder, *CHEAP)
    values = json.loads(done.stdout)
    assert done.code == 0
    assert values["num_architectures"] == 4
    assert values["failed"] == [{"digest": record["digest"], "seed": record["seed"], "error": "loss is not finite"}]
    assert record["digest"] not in {row["digest"] for row in values["architectures"]}
    assert f"{record['digest']}, seed {record['seed']}: loss is not finite" in done.stderr

    other = next(p for p in (folder / "trust").glob("*.json") if record["digest"] not in p.name)
    other.write_text(json.dumps(json.loads(other.read_text()) | {"top1": None, "error": "out of memory"}))
    hopeless = command("trust", folder, *CHEAP)
    assert (hopeless.code, hopeless.stdout) == (1, "")
    assert "3 architectures were trained to their end, 4 are needed" in hopeless.stderr


def test_a_damaged_record_is_named_and_not_replaced(trusted_run, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(trusted_run[0], folder)
    victim = sorted((folder / "trust").glob("*.json"))[0]
    victim.write_text('{"top1": ')
    done = command("trust", folder, *CHEAP)
    assert done.code == 2
    assert f"{victim}: not the record of a training" in done.stderr
    assert victim.read_text() == '{"top1": '


def test_dead_operators_of_networks_alone_are_recorded_and_said(trusted_run, tmp_path, monkeypatch):
    folder = tmp_path / "r"
    shutil.copytree(trusted_run[0], folder)
    paths = sorted((folder / "trust").glob("*.json"))
    for path in paths:  # as before operators were looked at
        record = json.loads(path.read_text())
        del record["dead_operators"]
        path.write_text(json.dumps(record))
    assert "are dead" not in command("trust", folder, *CHEAP).stderr
    paths[0].unlink()
    flat = Course({"step": 9.0, "steps": 9.0}, {"glad_entropy": 0.99})
    monkeypatch.setattr(
        "nas.jobs.alone_records.course_of", lambda run: flat if paths[0].stem == run.path.name else None
    )
    done = command("trust", folder, *CHEAP)
    assert done.code == 0
    record = json.loads(paths[0].read_text())
    assert record["dead_operators"] == flat.dead
    said = " ".join(done.stderr.split())
    assert f"operators are dead in 1 of 10 trainings, as in {record['digest']}: glad is dead" in said


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_train_what_one_process_trains(trusted_run, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(trusted_run[0], folder)
    shutil.rmtree(folder / "trust")
    arguments = ["trust", str(folder), *CHEAP[:-1], "--workers=2"]
    with search_process(arguments, tmp_path) as process:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    assert outline(json.loads(stdout)) == outline(trusted_run[1])
    assert "Warning" not in stderr
