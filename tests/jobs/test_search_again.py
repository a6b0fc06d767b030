"""Runs that share a supernet: nothing is trained or measured twice."""

from small_runs import TINY, TRIALS, command, run_arguments

from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.trial import TrialState


def arguments(finished, name, *more):
    folder = finished.folder.parent / name
    return folder, run_arguments(folder, f"--init={finished.folder}", "--epochs=0", *more)


def test_a_supernet_is_searched_again_and_what_was_measured_is_free(finished):
    folder, words = arguments(finished, "again", "--trials=4")
    done = command(*words)
    assert done.code == 0, done.stderr
    run, before = RunDirectory.open(folder), RunDirectory.open(finished.folder)
    assert run.manifest.supernet_digest == before.manifest.supernet_digest
    free = {trial.architecture.digest: trial for trial in run.trials() if trial.source}
    paid = [trial for trial in run.trials() if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    measured = {t.architecture.digest: t for t in before.trials() if t.state is TrialState.COMPLETE}
    assert len(free) > 4
    assert len(paid) == 4
    assert not {trial.architecture.digest for trial in paid} & set(measured)
    for digest, trial in free.items():
        assert trial.source == f"{finished.folder.name}#{measured[digest].number}"
        assert trial.measurement.values["top1"] == measured[digest].measurement.values["top1"]
    assert "architectures were measured by other runs" in done.stderr
    assert command(*words).code == 0
    assert [t.to_dict() for t in RunDirectory.open(folder).trials()] == [t.to_dict() for t in run.trials()]


def test_a_supernet_of_other_choices_is_misuse_and_leaves_nothing(finished, tmp_path):
    space = tmp_path / "other.yaml"
    space.write_text(TINY.replace("embed_dim: [16, 24]", "embed_dim: [16, 32]"))
    done = command("run", space, "--run", tmp_path / "r", f"--init={finished.folder}", "--epochs=0")
    assert done.code == 2
    assert "its supernet is of another space" in done.stderr
    assert not (tmp_path / "r").exists()


def test_no_training_needs_weights(tmp_path):
    space = tmp_path / "tiny.yaml"
    space.write_text(TINY)
    done = command("run", space, "--run", tmp_path / "r", "--epochs=0")
    assert done.code == 2
    assert "there are no weights" in done.stderr
    assert not (tmp_path / "r").exists()


def test_constraints_may_differ_from_those_of_the_first_search(finished):
    largest = max(t.measurement.values["macs"] for t in RunDirectory.open(finished.folder).trials())
    folder, words = arguments(finished, "bounded", "--trials=2", f"--set=constraints.max_macs={0.7 * largest}")
    assert TRIALS > 2
    assert command(*words).code == 0
    trials = RunDirectory.open(folder).trials()
    assert all(trial.measurement.values["macs"] <= 0.7 * largest for trial in trials)


def test_a_search_starts_from_the_fronts_of_earlier_runs(finished):
    folder, words = arguments(
        finished, "seeded", "--trials=2", f"--set=search.seed_runs=[{finished.folder}]", "--seed=0"
    )
    done = command(*words)
    assert done.code == 0, done.stderr
    front = [point.architecture for point in ParetoFront.from_run(finished.folder).points]
    first = [trial.architecture for trial in RunDirectory.open(folder).trials()]
    ends = set(first[:2])  # the largest and the smallest of the space
    assert first[2 : 2 + len(set(front) - ends)] == [a for a in front if a not in ends]
    assert f"{len(front)} of {len(front)} on the front of {finished.folder}" in done.stderr
