"""The commands of `latency`: what they ask for, and what they print."""

import json

import pytest
from report_runs import made_trials, make_run
from small_runs import command
from typer.main import get_command

import nas.latency
from nas.cli.app import app
from nas.settings.target import parse_target

FLAGS = {
    "measure": {"--target", "--rounds", "--format"},
    "profile": {"--target", "--architectures", "--to", "--rounds", "--seed", "--set", "--format"},
    "pack": {"--to", "--batch", "--format"},
    "read": {"--format"},
}

PROFILE = {
    **{"file": "x.json", "architectures": 20, "target": "torch-cpu", "batch": 64, "image_size": 8, "noisy": 0},
    **{"device": "cpu", "usable": True, "losses": []},
    "predictors": [{"predictor": "MACs", "mape_percent": 3.0, "tau": 0.9}],
}


def test_the_commands_and_their_flags_are_these():
    found = get_command(app).commands["latency"].commands
    assert set(found) == set(FLAGS)
    for name, flags in FLAGS.items():
        assert {f for p in found[name].params for f in p.opts if f.startswith("--")} - {"--help"} == flags
        assert all(parameter.help for parameter in found[name].params)
        assert command("latency", name, "--help").code == 0


@pytest.fixture
def asked(monkeypatch):
    """What `nas.latency` was asked for; it answers with few words."""
    calls = {}
    answers = {
        "measure_source": {"device": "cpu", "image_size": 8, "targets": []},
        "profile_space": PROFILE,
        "pack_run": {"models": [{"file": "a.onnx"}]},
    }
    for name, answer in answers.items():

        def job(*arguments, name=name, answer=answer):
            calls[name] = arguments
            return answer

        monkeypatch.setattr(nas.latency, name, job)
    return calls


def test_measuring_is_the_command_where_none_is_named(asked, tmp_path):
    run = make_run(tmp_path / "r", made_trials(5)).path
    for words in (("latency", run), ("latency", "measure", run)):
        asked.clear()
        assert command(*words, "--target=torch-cpu:batch=2", "--rounds=7").code == 0
        assert asked["measure_source"][:3] == (run, [parse_target("torch-cpu:batch=2")], 7)


def test_a_profile_is_named_after_space_and_target_and_says_how_it_is_used(asked, home):
    done = command("latency", "profile", "tiny.yaml", "--target=torch-cpu:batch=2", "--set=depth=1")
    space, target, count, rounds, seed, file, _ = asked["profile_space"]
    assert (space.name, space.depth, str(target), count, rounds, seed) == (
        "tiny", (1,), "torch-cpu:batch=2", 80, 9, 0
    )  # fmt: skip
    assert str(file) == "latency-tiny-torch-cpu-batch-2.json"
    assert f"run tiny.yaml --target profile:{file}" in done.stderr
    assert json.loads(done.stdout) == PROFILE


def test_a_profile_that_predicts_nothing_is_a_bad_answer(asked, home, monkeypatch):
    monkeypatch.setitem(PROFILE, "usable", False)
    done = command("latency", "profile", "tiny.yaml", "--to=p.json", "-f", "csv")
    assert done.code == 1
    assert done.stdout.splitlines() == ["predictor,mape_percent,tau", "MACs,3.0,0.9"]
    assert "next" not in done.stderr


def test_what_is_packed_is_counted_and_the_next_step_told(asked, tmp_path):
    done = command("latency", "pack", tmp_path, "--to=device", "--batch=3", "-f", "table")
    assert asked["pack_run"][2] == 3
    assert "device: 1 models" in done.stdout
    assert "copy device to the device" in done.stderr
