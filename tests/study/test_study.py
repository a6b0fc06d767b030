from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from search_fakes import OBJECTIVES, AnalyticEvaluator, digits, make_study, tiny_space
from study_steps import proposals, tell

from nas.base.errors import RunError
from nas.base.metrics import MACS, TOP1, Objective
from nas.runs.trial import Timed
from nas.space.designs import known_designs, plain_shapes
from nas.study.samplers import ATTRIBUTE
from nas.study.study import ArchitectureStudy, _coarse_to_fine


def test_the_largest_and_the_smallest_architecture_come_first(tmp_path):
    space = digits()
    assert proposals(make_study(space, tmp_path / "j"), 2) == [space.largest().digest, space.smallest().digest]


def test_seeds_and_known_designs_come_next_and_random_search_has_none(tmp_path):
    space = digits()
    seed = space.sample(np.random.default_rng(5))
    designs = known_designs(space, space.seeds).values()
    expected = dict.fromkeys([space.largest(), space.smallest(), seed, *designs])
    first = proposals(make_study(space, tmp_path / "j", seeds=[seed]), len(expected))
    assert first == [architecture.digest for architecture in expected]
    drawn = proposals(make_study(space, tmp_path / "r", "random"), len(expected))
    assert len(set(drawn[2:]) & set(first)) < len(expected) - 4


def without_plain(space):
    return replace(space, seeds=tuple(name for name in space.seeds if name != "plain"))


def test_plain_shapes_are_proposed_by_turns_with_spread_designs_then_every_third_time(tmp_path):
    space, size = digits(), 14
    known = dict.fromkeys([space.largest(), space.smallest(), *known_designs(space, space.seeds).values()])
    shapes = [shape.digest for shape in plain_shapes(space) if shape not in known]
    places = size - len(known)
    last = size + 3 * (len(shapes) - (places + 1) // 2)
    study = ArchitectureStudy(space, OBJECTIVES, "nsga2", size, 0, tmp_path / "j")
    assert study.raced_plain == {shape.digest for shape in plain_shapes(space)}
    found = proposals(study, last + 6)
    assert found[: len(known)] == [architecture.digest for architecture in known]
    raced = [found[number] for number in (*range(len(known), size, 2), *range(size + 2, last, 3))]
    assert sorted(raced) == sorted(shapes)


def test_every_beginning_of_the_plain_shapes_is_spread_over_all_of_them():
    assert _coarse_to_fine([*range(9)]) == [0, 8, 4, 2, 6, 1, 3, 5, 7]
    assert [_coarse_to_fine([*range(count)]) for count in (0, 1, 2)] == [[], [0], [0, 1]]


@pytest.mark.parametrize("sampler", ["random", "nsga2", "predictor"])
def test_a_space_that_lists_no_plain_seeds_races_none(tmp_path, sampler):
    space = without_plain(digits())
    study = make_study(space, tmp_path / "j", sampler)
    assert not study.raced_plain
    found = proposals(study, 30)
    if sampler == "random":
        assert proposals(make_study(digits(), tmp_path / "k", sampler), 30) == found
    else:
        assert proposals(make_study(digits(), tmp_path / "k", sampler), 30) != found


def test_a_study_that_a_version_without_plain_shapes_began_goes_on_without_them(tmp_path):
    straight = proposals(make_study(without_plain(digits()), tmp_path / "a"), 30)
    study = make_study(without_plain(digits()), tmp_path / "b")
    known = dict(study._study.user_attrs[ATTRIBUTE])
    assert known.pop("races_plain") is False
    study._study.set_user_attr(ATTRIBUTE, known)
    assert proposals(study, 15) == straight[:15]
    study = make_study(digits(), tmp_path / "b")
    assert not study.raced_plain
    assert straight[15:] == proposals(study, 15)


def read_only(path):
    return JournalStorage(JournalFileBackend(str(path)))


def test_a_loaded_study_keeps_its_window(tmp_path):
    make_study(tiny_space(), tmp_path / "j", window=3).close()
    study = make_study(tiny_space(), tmp_path / "j", window=16)
    assert study.window == 3
    study.close()


def test_trials_left_running_are_found_again_under_their_numbers(tmp_path):
    study = make_study(digits(), tmp_path / "j")
    asked = dict(study.ask() for _ in range(4))
    study.close()
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join(lines[:-5]))  # as if killed within the last
    study = make_study(digits(), tmp_path / "j")
    assert study.proposed() == dict.fromkeys(asked, "")
    assert {number: study.architecture(number) for number in asked} == asked
    tell(study, 1, asked[1], "no luck")
    tell(study, 2, asked[2], AnalyticEvaluator(study.space.backbone).evaluate(asked[2]))
    assert study.proposed() == {0: "", 1: asked[1].digest, 2: asked[2].digest, 3: ""}
    study.close()


def test_an_enqueued_architecture_is_proposed_next(tmp_path):
    study = make_study(digits(), tmp_path / "j", "random")
    proposals_so_far = [study.ask() for _ in range(2)]
    wanted = study.space.sample(study.generator(0))
    study.enqueue(wanted)
    assert study.ask() == (len(proposals_so_far), wanted)
    study.close()


def test_everything_told_is_readable_by_optunas_tools(tmp_path):
    study = make_study(digits(), tmp_path / "j", "random")
    (first, a), (second, b) = study.ask(), study.ask()
    measurement = AnalyticEvaluator(study.space.backbone).evaluate(a)
    tell(study, first, a, measurement)
    tell(study, second, b, "out of memory")
    stock = optuna.load_study(study_name="architectures", storage=read_only(tmp_path / "j"))
    assert stock.metric_names == ["top1", "macs", "latency_ms"]
    assert [direction.name for direction in stock.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    told, failed = stock.trials
    assert told.values == [measurement.values[name] for name in ("top1", "macs", "latency_ms")]
    assert told.user_attrs == {"nas": {"digest": a.digest, "values": dict(measurement.values)}}
    assert failed.state is TrialState.FAIL
    assert failed.user_attrs == {"nas": {"digest": b.digest, "error": "out of memory"}}
    study.close()


def test_a_measured_latency_beyond_the_bound_makes_a_trial_infeasible(tmp_path):
    study = make_study(tiny_space(max_latency_ms=4.0), tmp_path / "j", "random")
    for latency_ms in (3.0, 6.0):
        number, architecture = study.ask()
        measurement = AnalyticEvaluator(study.space.backbone).evaluate(architecture)
        measurement = replace(measurement, latency={"latency_ms": Timed(ms=latency_ms)})
        tell(study, number, architecture, measurement)
    stock = optuna.load_study(study_name="architectures", storage=read_only(tmp_path / "j"))
    assert [trial.constraints for trial in stock.trials] == [{"latency_ms": -1.0}, {"latency_ms": 2.0}]
    study.close()


def test_two_runs_of_a_name_do_not_share_a_study(tmp_path):
    made = {"storage": f"sqlite:///{tmp_path}/all.db", "name": "digits-1"}
    make_study(digits(), run="one", **made).close()
    make_study(digits(), run="one", **made).close()
    with pytest.raises(RunError, match=r"run: there 'one', here 'other'"):
        make_study(digits(), run="other", **made)
    make_study(digits(), tmp_path / "j").close()  # of a version that did not say it
    make_study(digits(), tmp_path / "j", run="one").close()


def test_another_search_in_the_storage_is_refused_with_all_differences(tmp_path):
    make_study(digits(), tmp_path / "j").close()
    with pytest.raises(RunError) as caught:
        ArchitectureStudy(tiny_space(), [Objective(TOP1, 0), Objective(MACS, 1e6)], "tpe", 6, 3, tmp_path / "j")
    for difference in (
        "space: there",
        "objectives: there ['top1', 'macs', 'latency_ms']",
        "sampler: ",
        "seed: there 0, here 3",
    ):
        assert difference in caught.value.message
    assert "population_size" not in caught.value.message
    make_study(digits(), tmp_path / "j").close()


def test_a_refused_study_leaves_the_journal_as_it_was(tmp_path):
    make_study(digits(), tmp_path / "j").close()
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(RunError):
        make_study(tiny_space(), tmp_path / "j")
    assert (tmp_path / "j").read_bytes() == before


def test_a_journal_of_other_records_is_refused(tmp_path):
    (tmp_path / "j").write_bytes(b'{"op_code":77,"worker_id":"w"}\n')
    with pytest.raises(RunError, match="is not an Optuna journal"):
        make_study(digits(), tmp_path / "j")


def test_a_database_gives_the_same_proposals_and_survives_a_kill_within_ask(tmp_path):
    space, url = tiny_space((1, 2, 3, 4)), f"sqlite:///{tmp_path}/study.db"
    straight = proposals(make_study(space, tmp_path / "j"), 7)
    assert proposals(make_study(space, url), 6) == straight[:6]
    storage = optuna.storages.RDBStorage(url)
    storage.create_new_trial(storage.get_study_id_from_name("architectures"))  # no parameters yet
    study = make_study(space, url)
    assert study.proposed()[6] == ""
    assert study.architecture(6).digest == straight[6]
    study.close()


def test_runs_can_share_a_database_under_their_names(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    first, second = make_study(tiny_space(), url, name="a"), make_study(tiny_space(), url, seed=5, name="b")
    assert first.ask()[0] == second.ask()[0] == 0


@pytest.mark.parametrize(
    "url", ["nonsense://user:secret@host/db", "postgresql://user:secret@localhost:1/db", "sqlite:////missing/x.db"]
)
def test_an_unusable_storage_is_one_clear_error_without_its_password(url):
    with pytest.raises(RunError, match="cannot be used") as caught:
        make_study(tiny_space(), url)
    assert "secret" not in caught.value.message
    assert caught.value.hint
