import numpy as np
import pytest
import small_spaces
from replay_evaluator import ReplayEvaluator, ReplayTable, all_architectures
from replay_tables import small_table

from nas.arch import cost
from nas.base.errors import EvaluationError, RunError
from nas.evaluation.protocol import FrontRunner, RacePlan
from nas.evaluation.racing import race_order

TABLE = small_table()


def test_every_architecture_of_a_space_is_listed_once():
    for space in (TABLE.space, small_spaces.space(depth=(2,), embed_dim=(16,), layers=small_layers())):
        found = list(all_architectures(space))
        assert len(found) == len({a.digest for a in found}) == space.size()
        assert all(architecture in space for architecture in found)


def small_layers():
    domain = small_spaces.every_choice(ffn_rank=(1.0,), mlp_ratio=(2.0,), num_heads=(1, 2))
    return (domain, domain)


def test_a_table_answers_with_what_it_was_made_of():
    evaluator = ReplayEvaluator(TABLE)
    for architecture in list(all_architectures(TABLE.space))[::50]:
        row = TABLE.row(architecture)
        found = evaluator.evaluate(architecture)
        assert found.values["top1"] == pytest.approx(TABLE.top1()[row])
        assert found.values["macs"] == cost.macs(architecture, TABLE.space.backbone)
        assert found.values["latency_ms"] == pytest.approx(float(TABLE.latency_ms[row]))
        assert found.correct == TABLE.correct[row].tobytes()
        low, high = found.intervals["top1"]
        assert low < found.values["top1"] < high
        assert found.conditions == TABLE.conditions


def test_a_race_is_run_on_the_recorded_answers():
    best, worst = int(TABLE.top1().argmax()), int(TABLE.top1().argmin())
    answers = [row.tobytes() for row in TABLE.correct[:16]]
    runner = FrontRunner(4, {"macs": 0.0}, TABLE.correct[best].tobytes())
    plan = RacePlan((runner,), *race_order(answers, TABLE.conditions.num_images))
    architecture = next(a for a in all_architectures(TABLE.space) if TABLE.row(a) == worst)
    beaten = ReplayEvaluator(TABLE).evaluate(architecture, plan)
    assert beaten.beaten_by == 4
    assert "top1" not in beaten.values
    assert beaten.conditions.num_images < TABLE.conditions.num_images
    assert len(beaten.correct) == -(-beaten.conditions.num_images // 8)


def test_a_table_is_read_as_it_was_written(tmp_path):
    TABLE.save(tmp_path / "t.npz")
    again = ReplayTable.load(tmp_path / "t.npz")
    assert again.space == TABLE.space
    assert again.conditions == TABLE.conditions
    for name in ("digests", "correct", "macs", "params", "latency_ms"):
        assert np.array_equal(getattr(again, name), getattr(TABLE, name))


def test_what_is_not_in_the_table_cannot_be_measured(tmp_path):
    foreign = next(iter(all_architectures(small_spaces.space(depth=(2,)))))
    with pytest.raises(EvaluationError, match="is not in the table of small_table"):
        ReplayEvaluator(TABLE).evaluate(foreign)
    (tmp_path / "t.npz").write_bytes(b"no table")
    with pytest.raises(RunError, match="is not a replay table"):
        ReplayTable.load(tmp_path / "t.npz")
