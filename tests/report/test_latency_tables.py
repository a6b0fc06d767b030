"""Latencies in words: every value with its interval, its doubts, and what it holds under."""

import pytest
from report_runs import LATENCY_ROWS, row_with, text_of

from nas.report.latency_tables import measured_rows, measured_tables, profile_table, results_table
from nas.settings.target import OURS

DIGESTS = [letter * 12 for letter in "abc"]


def point(i, **changes):
    values = {"digest": DIGESTS[i], "latency_ms": 1.5 + i, "latency_ci_ms": [1.4 + i, 1.75 + i], "rounds": 30}
    return {**values, "noisy": i == 1, "ties": DIGESTS[1:i], **changes}


def measured(**changes):
    target = {**LATENCY_ROWS[1], "note": None, "points": [point(i) for i in range(3)], **changes}
    return {"device": "cpu: Test CPU", "image_size": 32, "targets": [target]}


def words(text, digest):
    """The row of a digest, without it."""
    return " ".join(row_with(text, f"  {digest}").split()[1:])


def test_a_target_has_a_row_a_model_with_spread_rate_and_doubts():
    text = text_of(measured_tables(measured()))
    assert "onnxruntime-cpu 1.20, batch of 1, 32 px, 2 threads" in text
    assert row_with(text, f"  {DIGESTS[0]}").split() == [DIGESTS[0], "1.500", "(1.400", "to", "1.750)", "667", "30"]
    assert row_with(text, f"  {DIGESTS[1]}").split()[-1] == "~"
    assert row_with(text, f"  {DIGESTS[2]}").split()[-2:] == ["=", "bbbbbb"]
    assert "Test CPU, load average 0.5 on 2 cores, core 0" in text  # torch does not run it
    eager = {**LATENCY_ROWS[0], "note": None, "points": [point(0)]}
    assert "Test CPU, torch 2.8.0, load average" in text_of(measured_tables({**measured(), "targets": [eager]}))
    assert "order repeats" not in text  # there were too few to say


def test_several_targets_stand_side_by_side_with_shares_of_the_first():
    values = measured()
    (float_,) = values["targets"]
    int8 = {**float_, "runtime": "onnxruntime-cpu int8 1.20", "points": [point(2), point(0), point(1)]}
    text = text_of(measured_tables({**values, "targets": [float_, int8]}))
    both = text.partition("side by side")[2]
    assert words(both, DIGESTS[0]) == "1.500 (1.400 to 1.750) 1.500 (1.400 to 1.750) 1.00 (0.80 to 1.25)"
    assert words(both, DIGESTS[1]) == "2.500 (2.400 to 2.750) ~ 2.500 (2.400 to 2.750) ~ 1.00 (0.87 to 1.15) ~"
    faster = {**int8, "batch": 2, "points": [point(i, latency_ms=1.5 + i) for i in range(3)]}
    both = text_of(measured_tables({**values, "targets": [float_, faster]})).partition("side by side")[2]
    assert both.split().count("image)") == 2
    assert words(both, DIGESTS[1]) == "2.500 (2.400 to 2.750) ~ 1.250 (1.200 to 1.375) ~ 0.50 (0.44 to 0.57) ~"
    assert "side by side" not in text_of(measured_tables(values))


def test_many_ties_are_cut_and_what_is_known_of_a_target_is_said():
    points = [point(0, ties=DIGESTS * 3)]
    text = text_of(measured_tables(measured(points=points, note="a note", repeat_tau=0.5, cores=None)))
    assert row_with(text, DIGESTS[0]).split()[-7:] == ["aaaaaa", "bbbbbb", "cccccc"] * 2 + ["..."]
    assert "order repeats with tau 0.50" in " ".join(text.split())
    assert "a note" in text
    assert "core 0" not in text


def test_csv_has_a_row_a_target_and_model():
    rows = measured_rows(measured())
    assert [row["digest"] for row in rows] == DIGESTS
    assert {row["target"] for row in rows} == {LATENCY_ROWS[1]["target"]}
    assert rows[0]["device"] == "cpu: Test CPU"


@pytest.mark.parametrize("usable", [True, False])
def test_a_profile_names_the_errors_of_every_predictor_and_the_verdict(usable):
    about = {"file": "p.json", "architectures": 80, "target": "torch-cpu", "batch": 64, "image_size": 32}
    scores = [
        {"predictor": name, "mape_percent": error, "tau": tau}
        for name, error, tau in ((OURS, 2.25, 0.991), ("MACs", 13.0, 0.88))
    ]
    about |= {"device": "cpu", "noisy": 3, "usable": usable, "losses": ["MACs predict better"]}
    text = text_of(profile_table({**about, "predictors": scores}))
    assert row_with(text, "all operations").split()[2:] == ["2.2", "%", "0.991"]
    assert row_with(text, "MACs  ").split() == ["MACs", "13.0", "%", "0.880"]
    assert ("not used: MACs predict better" in text) is not usable


@pytest.mark.parametrize(("missing", "tau"), [(0, 0.93), (2, None)])
def test_another_device_stands_beside_this_one(missing, tau):
    here = {"latency_here_ms": 2.0, "latency_here_ci_ms": [1.9, 2.1], "noisy_here": True}
    points = [point(0, top1=91.26, macs=1_234_567, **here)]
    points.append(point(1, top1=None, macs=None, **dict.fromkeys(here)))
    about = {"run": "r", "device": "Pi", "runtime": "onnxruntime", "batch": 1, "threads": 4, "system": "Linux"}
    about["here"] = {"device": "Xeon", "runtime": "torch-cpu", "batch": 1, "threads": 1}
    about |= {"missing": missing, "repeat_tau": tau, "tau_with_here": 0.5, "points": points}
    text = text_of(results_table(about))
    assert words(text, DIGESTS[0]) == "91.3 1.23 2.000 ± 0.100 ~ 1.500 (1.400 to 1.750) 0.75 (0.67 to 0.92) ~"
    assert row_with(text, DIGESTS[1]).split()[1:4] == ["-"] * 3
    assert words(text, DIGESTS[1]).endswith(" 2.500 (2.400 to 2.750) ~ -")
    assert ("2 of the front were not measured there" in text) == bool(missing)
    said = " ".join(text.split())
    assert f"tau {'-' if tau is None else '0.93'}, order of here and there: tau 0.50" in said
    assert "there: onnxruntime, batch of 1, threads: 4, Pi, Linux" in said
    assert "here: torch-cpu, batch of 1, threads: 1, Xeon here and there are not set up alike" in said
    about["here"] = {**about["here"], "batch": 64}  # no ratio of other batches
    assert "there / here" not in text_of(results_table(about))
