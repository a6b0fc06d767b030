"""`init` on the command line."""

import pytest
from small_runs import command


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def test_a_space_and_a_configuration_are_written_once(tmp_path):
    done = command("init", "--data=digits", "--to=mine.yaml", "--format=table")
    assert done.code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.config.yaml", "mine.yaml"]
    assert "$ nas run mine.yaml --config mine.config.yaml --trials 200" in done.stdout
    assert "warning   287 search images" in done.stderr
    assert done.stderr.splitlines()[-1] == "next      nas run mine.yaml --config mine.config.yaml --trials 200"
    again = command("init", "--data=digits", "--to=mine.yaml")
    assert (again.code, again.stdout) == (2, "")
    assert "error: mine.yaml is there already" in again.stderr
    assert command("check", "mine.yaml").code == 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--data=folder:nowhere"], "no such folder: nowhere"),
        (["--data=dgits"], "unknown data spec 'dgits'"),
        (["--set=train.lrr=1"], 'did you mean "lr"?'),
    ],
)
def test_what_cannot_be_is_said_in_one_message(tmp_path, words, error):
    done = command("init", *words)
    assert (done.code, done.stdout) == (2, "")
    assert error in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_run_can_be_rehearsed_and_then_done():
    assert "rehearsed: training" in command("init", "--forecast", "--format=table", "--set=train.epochs=1").stdout
    words = ("--trials=4", "--workers=0", "--set=evaluate.final_rounds=3", "--finalists=0")
    assert command("run", "digits.yaml", "--config=digits.config.yaml", *words).code == 0
