"""What another run measured under the same conditions is taken over and not paid for."""

from factories import search_identity
from replay_evaluator import ReplayEvaluator
from replay_searches import TABLE, search
from search_fakes import new_run, outline

from nas.runs.directory import RunDirectory
from nas.runs.trial import TrialState
from nas.study.reuse import known_measurements
from nas.study.workers import InlineWorkers


class NeverAsked(ReplayEvaluator):
    """Fails where something is paid for again."""

    def __init__(self, known):
        super().__init__(TABLE)
        self._known = known

    def evaluate(self, architecture, plan=None, *, attempt=0):
        assert architecture.digest not in self._known
        return super().evaluate(architecture, plan, attempt=attempt)


def test_what_another_run_measured_is_taken_over_and_not_paid_for(tmp_path):
    identity = {"supernet_digest": "0123456789ab", "search": search_identity(reference_ms=2.0)}
    first = search(tmp_path / "a", trials=40, racing=False)
    for name, changes in (("a", {}), ("other", {"supernet_digest": "ba9876543210"})):
        if name == "other":
            search(tmp_path / name, trials=10, racing=False, seed=7)
        RunDirectory.open(tmp_path / name).update_manifest(**(identity | changes))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text("{")
    run = new_run(tmp_path / "b")
    run.update_manifest(**identity | {"search": search_identity(reference_ms=4.0)})
    known = known_measurements(run, TABLE.conditions, ["top1", "latency_ms"])
    assert set(known) == {trial.architecture.digest for trial in first}
    latency = first[0].measurement.values["latency_ms"]
    assert known[first[0].architecture.digest].measurement.values["latency_ms"] == 2 * latency
    assert known_measurements(run, factories_conditions(precision="bf16"), []) == {}
    assert known_measurements(run, TABLE.conditions, ["latency_ms_2"]) == {}

    workers = InlineWorkers(NeverAsked(known))
    again = search(tmp_path / "b", trials=20, racing=False, known=known, workers=workers)
    free = [trial for trial in again if trial.source]
    assert [trial.source for trial in free[:2]] == ["a#0", "a#1"]
    assert {trial.state for trial in free} == {TrialState.REPEATED}
    assert sum(trial.state is TrialState.COMPLETE for trial in again) == 20
    straight = search(tmp_path / "c", trials=len(again), racing=False)
    assert [t.architecture for t in again] == [t.architecture for t in straight][: len(again)]
    assert outline(search(tmp_path / "b", trials=20, racing=False, known=known)) == outline(again)


def factories_conditions(**changes):
    from dataclasses import replace

    return replace(TABLE.conditions, **changes)
