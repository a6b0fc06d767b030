"""The manifest is a value: old files read and write back as they are, and damage is said with the file and its keys."""

import json
import math
import shutil
from pathlib import Path

import factories
import pytest

from nas.base.errors import RunError
from nas.base.metrics import LATENCY, MACS, TOP1
from nas.runs.directory import RunDirectory
from nas.runs.manifest import ImagePlace, Manifest, SearchBudget, SupernetTrial

FIXTURES = Path(__file__).parents[1] / "fixtures"
OLD = sorted(path for path in FIXTURES.rglob("manifest.json"))


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "r", manifest=factories.manifest(), space_text="", config={})


def write(run, **changes):
    """Change keys of the file itself; None takes one out."""
    path = run.path / "manifest.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


@pytest.mark.parametrize("path", OLD, ids=lambda path: str(path.parent.relative_to(FIXTURES)))
def test_an_old_manifest_is_written_back_byte_for_byte(path, tmp_path):
    assert len(OLD) == 4
    run = RunDirectory(tmp_path)
    shutil.copy(path, tmp_path)
    run.update_manifest()
    assert (tmp_path / "manifest.json").read_bytes() == path.read_bytes()


def test_the_values_of_an_old_manifest():
    manifest = RunDirectory.open(FIXTURES / "old_run").manifest
    assert [o.metric for o in manifest.search.objectives] == [TOP1, MACS, LATENCY]
    assert manifest.search.objectives[1].reference == 169294.40000000002
    assert manifest.search.reference_clocks == {"latency_ms": 0.4964193000091654, "latency_ms_2": 0.6982915625002306}
    assert manifest.search.reference_digest == "205b7fd9a1aa"
    assert manifest.constraints == {"latency_ms_2": 1000.0}
    assert manifest.budget == SearchBudget(num_trials=12)
    assert (manifest.stage, manifest.supernet_trial, manifest.supernet_trials) == ("finished", None, None)
    assert manifest.class_names == tuple("0123456789")
    assert manifest.splits["search"] == "9a33a149dde96808"


def test_a_supernet_trial_reads_back_with_epochs_as_numbers(run):
    trial = SupernetTrial(number=3, parameters={"train.lr": 0.1, "space.depth": [2, 3]}, scores={1: 0.5, 10: 0.75})
    run.update_manifest(supernet_trial=trial)
    assert run.manifest.supernet_trial == trial
    assert run.manifest.supernet_trial.score == 0.75
    assert json.loads((run.path / "manifest.json").read_text())["supernet_trial"]["scores"] == {"1": 0.5, "10": 0.75}
    old = RunDirectory.open(FIXTURES / "old_supernets/supernets/6020a1a2dfc2").manifest.supernet_trial
    assert (old.key, old.state, sorted(old.scores)) == ("6020a1a2dfc2", "complete", [1, 2])


def test_a_search_that_has_not_begun_leaves_its_keys_out(tmp_path):
    begun = factories.manifest().to_dict()
    fresh = factories.manifest(search=None).to_dict()
    assert begun.keys() - fresh.keys() == {"objectives", "reference_ms", "further_reference_ms", "reference_digest"}
    assert not {"search", "budget", "study", "supernet_digest", "supernet_trials"} & begun.keys()
    assert Manifest.from_dict(fresh, "m").search is None


def test_an_update_changes_what_it_names_and_keeps_keys_of_later_versions(run):
    write(run, colour={"of": ["a", "later", None]}, nothing=0)
    before = run.manifest
    run.update_manifest(stage="measuring", supernet_digest="abc", budget=SearchBudget(num_trials=5))
    after = run.manifest
    assert (after.stage, after.supernet_digest, after.budget) == ("measuring", "abc", SearchBudget(num_trials=5))
    changed = {"stage": "searching", "supernet_digest": None, "budget": None}
    assert after.model_copy(update=changed) == before
    written = json.loads((run.path / "manifest.json").read_text())
    assert written["colour"] == {"of": ["a", "later", None]}
    assert written["nothing"] == 0
    assert written["schema_version"] == 1


@pytest.mark.parametrize("change", [{"stage": "resting"}, {"threads": "many"}, {"constraints": {"macs": math.inf}}])
def test_an_update_that_the_file_cannot_hold_changes_nothing(run, change):
    before = (run.path / "manifest.json").read_bytes()
    with pytest.raises(RunError, match=f"manifest.json cannot be used: {next(iter(change))}"):
        run.update_manifest(**change)
    assert (run.path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"mean": None, "seed": "three"}, ["mean: Field required", "seed: Input should be a valid integer"]),
        ({"std": [1.0]}, ["std.1: Field required", "std.2: Field required"]),
        ({"class_names": "ten"}, ["class_names: Input should be a valid tuple"]),
        ({"objectives": None}, ["objectives: Field required"]),
        ({"reference_digest": None, "reference_ms": "fast"}, ["reference_digest: Field", "reference_ms: Input"]),
        ({"objectives": [{"name": "top1"}]}, ["objectives.0: Value error, not an objective: KeyError('reference')"]),
        ({"objectives": [{"name": "speed", "reference": 1}]}, ["objectives.0: ", "unknown metric 'speed'"]),
        ({"budget": {"num_trials": "all"}}, ["budget.num_trials: Input should be a valid integer"]),
        ({"supernet_trial": {"number": 0}}, ["supernet_trial.parameters: Field required"]),
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_one_error_with_the_file_and_all_its_keys(run, changes, messages):
    write(run, **changes)
    with pytest.raises(RunError) as raised:
        RunDirectory.open(run.path)
    assert raised.value.message.startswith(f"{run.path / 'manifest.json'} cannot be used: ")
    assert all(message in raised.value.message for message in messages)
    assert "search" not in raised.value.message.split("cannot be used")[1]
    assert raised.value.hint == "restore it from a copy"


def test_a_manifest_is_not_changed_in_place(run):
    with pytest.raises(ValueError, match="frozen"):
        run.manifest.seed = 1


def test_runs_share_data_where_classes_and_a_spec_or_a_split_are_the_same():
    def about(spec, **changes):
        return factories.manifest(images=ImagePlace(spec=spec, folders=(".",)) if spec else None, **changes)

    one = about("folder:a", splits={"train": "1", "test": "2"})
    assert one.shares_data_with(about("folder:a", splits={"train": "3", "test": "4"})), "another seed"
    assert one.shares_data_with(about("folder:b", splits={"train": "3", "test": "2"})), "moved, with a test split"
    assert one.shares_data_with(about(None, splits={"train": "3"})), "of before: not known"
    assert not one.shares_data_with(about("folder:b", splits={"train": "2", "test": "1"}))
    assert not one.shares_data_with(about("folder:a", class_names=("x", "y")))
