import pytest
from small_runs import begin, one_thread

from nas.jobs import stages
from nas.jobs.measures import evaluate
from nas.jobs.session import Budget


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


def test_references_of_the_hypervolume_are_fixed_when_the_search_begins(tmp_path):
    session = begin(tmp_path, "search.objectives=[top1, macs]")
    stages.run(session, Budget(trials=2))
    before = session.run.manifest.search
    stages.run(session, Budget(trials=4))
    assert session.run.manifest.search == before
    assert before.objectives[0].reference == 0.0
    assert before.objectives[1].reference > session.space.macs_range()[1]


def test_an_architecture_is_measured_as_a_trial_of_the_search_was(tmp_path):
    session = begin(tmp_path, "search.objectives=[top1, macs]", "evaluate.racing=false")
    stages.run(session, Budget(trials=3))
    trial = session.run.trials()[2]
    again = evaluate(session, trial.architecture)
    assert again.values == trial.measurement.values
    assert again.correct == trial.measurement.correct
    assert again.conditions == trial.measurement.conditions
