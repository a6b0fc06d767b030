"""What people read: words, units and shares are those of the values, and looking imports nothing heavy."""

import re
import subprocess
import sys
from pathlib import Path

import factories
import pytest
from report_runs import row_with, text_of

from nas.arch import cost
from nas.arch.drawing import draw_layers
from nas.report.architecture_table import show_rows, show_table
from nas.report.status import status_dict, status_table
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.point import FrontPoint
from nas.runs.trial import TrialState

ROOT = Path(__file__).resolve().parents[2]


def test_layers_are_drawn_with_one_glyph_each_and_a_mark_where_tokens_fall():
    assert draw_layers(factories.varied()) == "●○◐▾■◐○◇▾●◇"
    assert draw_layers(factories.plain(4)) == "●●●●"


def test_show_adds_up_to_the_network_and_names_every_operator():
    architecture, backbone = factories.varied(), factories.backbone()
    rows = show_rows(architecture, backbone)
    assert sum(row["macs"] for row in rows) == cost.macs(architecture, backbone)
    assert sum(row["params"] for row in rows) == cost.params(architecture, backbone)
    assert sum(row["macs_share"] for row in rows) == pytest.approx(1)
    layers = [row for row in rows if row["layer"] is not None]
    assert [row["attention"] for row in layers] == [
        "dynamic",
        "shared from 0",
        "dynamic, 1 of 2 copy",
        "static",
        "dynamic, 1 of 3 mix_conv",
        "shared from 4, 1 of 3 mix",
        "linear",
        "dynamic",
        "linear",
    ]
    assert [(row["tokens"], row["reducer"]) for row in layers[2:4]] == [(16, None), (4, "conv_pool")]
    assert [row["hidden"] for row in layers] == [48, 48, 72, *[48] * 6]
    assert [row["rank"] for row in layers] == [None] * 5 + [12, None, 6, None]
    assert {row["latency_share"] for row in layers} == {None}
    assert [row["part"] for row in rows if row["layer"] is None] == [
        "patch_embed",
        "pos_embed",
        "norm",
        "head",
    ]


def test_show_prints_the_latency_shares_of_the_point_and_the_totals():
    shares = {"layer_latency_share": [0.25, 0.125, 0.25, 0.25, 0.0625, 0.03, 0.0125, 0.01, 0.01]}
    shown = FrontPoint(factories.varied(), factories.measurement(), shares)
    text = text_of(show_table(shown, factories.backbone()), width=160)
    assert row_with(text, "layer 1").split()[-2:] == ["12.5", "%"]
    assert row_with(text, "▾ conv_pool").split()[:6] == ["layer", "3", "4", "▾", "conv_pool", "■"]
    macs = cost.macs(shown.architecture, factories.backbone())
    assert row_with(text, "total").split()[1] == f"{macs / 1e3:.2f}"
    assert "kMACs" in text


def make_run(tmp_path, **manifest):
    path = tmp_path / "digits-1"
    return RunDirectory.create(path, manifest=factories.manifest(**manifest), space_text="", config={})


def fill(run):
    """Five measured trials 30 s apart with a pause of a day in between, one repeat, one in flight."""
    a, *others = factories.distinct_architectures(6)
    times = [0, 30, 60, 86_460, 86_490]
    fixed = [{"finished": 1e9 + t} for t in times]
    fixed[1] |= {"state": TrialState.FAILED, "measurement": None, "error": "NaN"}
    fixed[2] |= {"state": TrialState.PRUNED, "measurement": None}
    for i, (architecture, changes) in enumerate(zip([a, *others], fixed, strict=False)):
        run.append_trial(factories.trial(i, architecture, **changes))
    run.append_trial(factories.trial(5, a, state=TrialState.REPEATED, repeat_of=0, finished=1e9 + 86_490))
    run.append_trial(
        factories.trial(6, others[-1], state=TrialState.RUNNING, measurement=None, finished=None)
    )


def test_status_counts_every_state_and_forecasts_from_the_pace_without_pauses(tmp_path):
    run = make_run(tmp_path, budget={"num_trials": 15})
    fill(run)
    with run.lock():
        status = status_dict(run)
    assert status["trials"] == {"running": 1, "complete": 3, "failed": 1, "repeated": 1, "pruned": 1}
    assert status["state"] == "searching"
    assert status["throughput_per_minute"] == pytest.approx(2.0)
    assert status["minutes_left"] == pytest.approx((15 - 5) / 2.0)
    assert status["hypervolume"] == ParetoFront.from_run(run.path).hypervolume() > 0
    assert status["front_size"] == 3
    text = text_of(status_table(status))
    assert row_with(text, "trials complete").split()[-3:] == ["3", "of", "15"]
    assert row_with(text, "throughput").split()[-2:] == ["2.0", "trials/min"]


def test_status_of_a_run_whose_writer_is_gone_is_interrupted_with_nothing_running(tmp_path):
    run = make_run(tmp_path)
    fill(run)
    status = status_dict(run)
    assert (status["state"], status["stage"]) == ("interrupted", "searching")
    assert status["trials"]["running"] == 0
    assert "interrupted while searching" in text_of(status_table(status))


def test_status_before_the_first_trial_knows_no_pace(tmp_path):
    status = status_dict(make_run(tmp_path, stage="created", budget={"num_trials": 10}))
    assert status["state"] == "created"
    assert (status["throughput_per_minute"], status["minutes_left"]) == (None, None)
    assert (status["hypervolume"], status["front_size"]) == (0.0, 0)
    assert "not known yet" in text_of(status_table(status))


def test_status_leaves_the_nearer_of_trials_and_deadline(tmp_path):
    run = make_run(tmp_path, budget={"num_trials": 15, "deadline": 2e9})
    fill(run)
    assert status_dict(run, now=2e9 - 120)["minutes_left"] == pytest.approx(2.0)
    assert status_dict(run, now=2e9 + 5)["minutes_left"] == 0
    run.update_manifest(stage="finished")
    assert (status_dict(run)["state"], status_dict(run)["minutes_left"]) == ("finished", 0)


def test_looking_at_results_imports_nothing_heavy():
    code = (
        "import sys, nas.report, nas.runs\n"
        "heavy = {'torch', 'timm', 'ray', 'optuna', 'pandas', 'matplotlib', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_key_of_status_and_manifest_is_explained_in_the_readme(tmp_path):
    explained = set(re.findall(r"`([\w.]+)`", (ROOT / "results" / "README.md").read_text()))
    keys = {*status_dict(make_run(tmp_path)), *factories.manifest().to_dict(), "budget"}
    assert keys - explained == set()
