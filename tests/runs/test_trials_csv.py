"""trials.csv: one row a trial, whatever became of it."""

import csv
import shutil
from pathlib import Path

import factories
import pytest

from nas.runs.directory import RunDirectory
from nas.runs.trial import TRIAL_COLUMNS, Measurement, Timed, TrialState

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "digits-1", manifest=factories.manifest(), space_text="", config={})


def test_trials_csv_has_one_row_a_trial_and_flat_keys(run):
    a, b, c = factories.distinct_architectures(3)
    measured = Measurement(
        top1=91.25,
        macs=2_000_000,
        params=20_000,
        latency={"latency_ms": Timed(ms=5.5, interval=(5.25, 5.75))},
        conditions=factories.conditions(),
        seconds=0.5,
    )
    run.append_trial(factories.trial(0, a, measurement=measured))
    failure = {"state": TrialState.FAILED, "measurement": None, "error": "out of memory,\nlayer 3"}
    run.append_trial(factories.trial(1, b, **failure))
    run.append_trial(factories.trial(2, a, state=TrialState.REPEATED, repeat_of=0, measurement=measured))
    run.append_trial(factories.trial(3, c, state=TrialState.RUNNING, measurement=None, finished=None))
    beaten = Measurement(
        macs=3_000_000,
        top1_interval=(80.5, 84.5),
        conditions=factories.conditions(num_images=64),
        seconds=0.25,
        beaten_by=0,
    )
    run.append_trial(factories.trial(4, c, state=TrialState.PRUNED, measurement=beaten))
    taken = factories.trial(5, b, state=TrialState.REPEATED, source="digits-1#17", measurement=measured)
    run.append_trial(taken)
    path = run.write_trials_csv()
    assert path.name == "trials.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == (
        "number,state,digest,top1,top1_ci_low,top1_ci_high,macs,flops,params,latency_ms,latency_ci_low_ms,"
        "latency_ci_high_ms,error,beaten_by,repeat_of,source,seconds,started,finished,conditions.device,conditions.precision,conditions.split,"
        "conditions.num_images,conditions.target,conditions.latency_batch_size,conditions.latency_threads,"
        "conditions.latency_stage,conditions.supernet,conditions.torch,architecture"
    )
    first, failed, repeated, running, pruned, known = rows
    expected = {
        "number": "0",
        "state": "complete",
        "digest": a.digest,
        "top1": "91.25",
        "macs": "2000000",
        "flops": "4000000",
        "params": "20000",
        "latency_ci_low_ms": "5.25",
        "latency_ci_high_ms": "5.75",
        "repeat_of": "",
        "conditions.num_images": "144",
        "architecture": a.to_json(),
    }
    assert {key: first[key] for key in expected} == expected
    assert (failed["state"], failed["error"], failed["macs"]) == ("failed", "out of memory,\nlayer 3", "")
    assert (repeated["repeat_of"], repeated["top1"]) == ("0", "91.25")
    assert (running["state"], running["finished"]) == ("running", "")
    assert (pruned["top1"], pruned["top1_ci_low"], pruned["beaten_by"]) == ("", "80.5", "0")
    assert (known["source"], known["repeat_of"], known["top1"]) == ("digits-1#17", "", "91.25")


def test_trials_csv_of_a_run_without_trials_is_its_header(run):
    assert run.trials() == []
    assert run.write_trials_csv().read_text().splitlines() == [",".join(TRIAL_COLUMNS)]


@pytest.mark.parametrize("fixture", ["old_run", "old_supernets/supernets/6020a1a2dfc2"])
def test_the_table_of_an_old_run_is_what_it_was(fixture, tmp_path):
    folder = FIXTURES / fixture
    shutil.copy(folder / "trials.jsonl", tmp_path)
    assert RunDirectory(tmp_path).write_trials_csv().read_bytes() == (folder / "trials.csv").read_bytes()
