"""What the benchmark of kills takes for equal, and for done."""

import json

from end_states import difference, finished
from kills import KILLED, STAGES, Blow, rows_left


def test_draws_depend_on_the_number_alone_and_every_stage_and_kind_comes():
    blows = [Blow.of(number) for number in range(150)]
    assert blows == [Blow.of(number) for number in range(150)]
    assert {blow.stage for blow in blows} == set(STAGES)
    assert {blow.victim for blow in blows} == {*KILLED, "stopped", "out of memory"}
    assert all(0.3 <= blow.share <= 1 for blow in blows)


def test_rows_go_on_until_there_are_so_many_kills():
    numbers = list(rows_left([], 20))
    assert sum(Blow.of(number).victim in KILLED for number in numbers) == 20
    assert list(rows_left([{"number": "0"}], 20)) == numbers[1:]


def test_times_and_places_may_differ_and_nothing_else(tmp_path):
    for name, accuracy, latency in (("calm", 50, 1.0), ("same", 50, 2.0), ("other", 51, 1.0)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "front.json").write_text(json.dumps({"top1": accuracy, "latency_ms": latency, "at": str(folder)}))
        (folder / "front.csv").write_text(f"top1,latency_ms\n50,{latency}\n")
        (folder / "lock").write_text(name)
    (tmp_path / "less").mkdir()
    calm = tmp_path / "calm"
    found = {name: difference(tmp_path / name, calm, measures=False) for name in ("same", "other", "less")}
    assert found == {"same": "", "other": "front.json differs in top1", "less": "front.csv is missing"}


def test_what_is_done_a_second_time_has_another_name(tmp_path):
    trials = tmp_path / "trials.jsonl"
    trials.write_text('{"number": 0, "state": "complete", "finished": 1}\n{"number": 1, "state": "running"}\n')
    before = finished(tmp_path)
    assert len(before) == 1
    trials.write_text(trials.read_text() + '{"number": 1, "state": "complete", "finished": 3}\n')
    assert not before - finished(tmp_path)
    trials.write_text('{"number": 0, "state": "complete", "finished": 2}\n')
    assert len(before - finished(tmp_path)) == 1
    for supernet in (tmp_path / "supernet", tmp_path / "trust" / "a-seed0" / "supernet"):
        supernet.mkdir(parents=True)
        (supernet / "step-3.json").write_text("{}")
        (supernet / "log.csv").write_text("step,seconds\n3,1.5\n4,2.0\n")
    names = [name for name in finished(tmp_path) if "log.csv" in name]
    assert names == [f"{tmp_path}/supernet/log.csv: [('seconds', '1.5'), ('step', '3')]"]
