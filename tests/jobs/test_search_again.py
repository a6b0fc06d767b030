"""Runs that share a supernet: nothing is trained or measured twice."""

import json

from small_runs import QUICK, TRIALS, command, run_arguments
from small_spaces import TINY

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
    assert "architectures measured by other runs" in done.stderr
    assert command(*words).code == 0
    assert [t.to_dict() for t in RunDirectory.open(folder).trials()] == [t.to_dict() for t in run.trials()]


def test_another_seed_searches_on_the_images_that_were_searched_on_and_tests_on_those_of_the_test(finished):
    folder, words = arguments(finished, "reseeded", "--trials=3", "--seed=7")
    assert command(*words).code == 0
    run, before = RunDirectory.open(folder), RunDirectory.open(finished.folder)
    assert run.manifest.seed == 7
    assert run.manifest.splits == before.manifest.splits
    assert command(*words, "--trials=4").code == 0
    assert command("search", folder, "--trials=5").code == 0
    top1 = {t.architecture: t.measurement.values["top1"] for t in before.trials() if t.measurement}
    again = {t.architecture: t.measurement.values["top1"] for t in run.trials() if t.measurement}
    assert top1.keys() & again.keys()
    assert all(again[architecture] == top1[architecture] for architecture in top1.keys() & again.keys())
    bundle = folder.parent / "of_another_seed"
    assert command("export", folder, "--pick=knee", f"--to={bundle}", "--formats=timm").code == 0
    told = command("validate", bundle, "--data=digits", "--format=json")
    assert json.loads(told.stdout)["notes"] == ["these are the test split that is on its card"]


def test_images_that_weights_were_trained_on_are_not_searched_on(finished):
    folder, words = arguments(finished, "leaking", "--trials=3")
    changes = {"data.split_seed=7": "split_seed=0", "data.test_fraction=0.3": "test_fraction=0.2"}
    for change, right in changes.items():
        refused = command(*words, f"--set={change}")
        assert f"as that run: --set data.{right}\n" in refused.stderr
        assert refused.code == 2
        assert "split these images otherwise, so its weights have seen some that would be searched" in refused.stderr
        assert not folder.exists()


def test_a_supernet_of_other_choices_is_misuse_and_leaves_nothing(finished, tmp_path):
    space = tmp_path / "other.yaml"
    space.write_text(TINY.replace("embed_dim: [16, 24]", "embed_dim: [16, 32]"))
    done = command("run", space, "--run", tmp_path / "r", f"--init={finished.folder}", "--epochs=0")
    assert done.code == 2
    assert (
        "its supernet has no weights for all of tiny, being of tiny:\n  embed_dim: [32], there [16, 24]" in done.stderr
    )
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


SUB = TINY.replace("name: tiny", "name: sub").replace("[16, 24]", "16").replace("[dynamic, static]", "dynamic")


def test_a_part_of_a_trained_space_is_searched_with_its_weights(finished, tmp_path):
    space, folder = tmp_path / "sub.yaml", tmp_path / "r"
    space.write_text(SUB)
    words = ["run", space, "--run", folder, f"--init={finished.folder}", "--epochs=0", "--workers=0", *QUICK[1:]]
    rehearsed = command(*words, "--dry-run", "--trials=4")
    assert rehearsed.code == 0, rehearsed.stderr
    done = command(*words, "--trials=6")
    assert done.code == 0, done.stderr
    before, after = RunDirectory.open(finished.folder), RunDirectory.open(folder)
    source = after.manifest.started_from
    assert (source.run, source.space) == (finished.folder.name, "tiny")
    assert source.space_digest == before.manifest.space_digest
    assert source.supernet_digest == before.manifest.supernet_digest != after.manifest.supernet_digest
    top1 = {t.architecture: t.measurement.values["top1"] for t in before.trials() if t.measurement and not t.source}
    again = {t.architecture: t.measurement.values["top1"] for t in after.trials() if t.measurement and not t.source}
    both = top1.keys() & again.keys()
    assert both
    assert all(top1[architecture] == again[architecture] for architecture in both)
    assert command(*words, "--trials=6").code == 0
    trained = command("train", space, "--run", tmp_path / "t", f"--init={finished.folder}", *QUICK, "--epochs=1")
    assert trained.code == 0, trained.stderr


def test_what_is_no_part_of_a_trained_space_is_refused_with_all_differences(finished, tmp_path):
    space = tmp_path / "other.yaml"
    space.write_text(
        SUB.replace("embed_dim: 16", "embed_dim: [16, 32]").replace(
            "attention: dynamic", "attention: [dynamic, linear]"
        )
    )
    differences = ["embed_dim: [32], there [16, 24]", "layers 0, 1: attention [linear], there [dynamic, static]"]
    expected = f"--init {finished.folder}: its supernet has no weights for all of sub, being of tiny:\n" + "".join(
        f"  {line}\n" for line in differences
    )
    asked = ("--run", tmp_path / "r", f"--init={finished.folder}", "--epochs=0")
    for words in (("run", space, *asked), ("run", space, *asked, "--dry-run"), ("check", space, asked[2])):
        refused = command(*words)
        assert refused.code == 2
        assert expected in refused.stderr
    assert not (tmp_path / "r").exists()
    space.write_text(SUB)
    assert command("check", space, asked[2]).code == 0
