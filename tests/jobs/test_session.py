import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from latency_profiles import packed_profile
from PIL import Image
from small_runs import TINY

from nas.base.errors import ConfigError, DataError, RunError, SearchSpaceError
from nas.base.progress import Reporter
from nas.jobs.session import RESULTS, reopen, start
from nas.runs.directory import RunDirectory
from nas.settings.config import resolve_config


@pytest.fixture
def space_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def begin(space_file, path=None, settings=(), space_settings=()):
    config = resolve_config(settings=["device=cpu", "train.epochs=3", *settings])
    return start(space_file, tuple(space_settings), config, path, Reporter(quiet=True))


def entries(folder):
    return sorted(folder.rglob("*"))


def finish(session):
    session.run.update_manifest(stage="finished")
    return session.run.path


def test_a_new_run_holds_space_configuration_and_what_identifies_it(space_file, tmp_path):
    session = begin(space_file, tmp_path / "r")
    assert session.space.backbone.num_classes == 10
    assert session.run.space_text() == TINY
    assert session.run.config()["train"]["epochs"] == 3
    manifest = session.run.manifest
    assert manifest.space_digest == session.space.digest
    assert manifest.splits == session.data.info.hashes
    assert manifest.class_names == tuple("0123456789")
    assert manifest.precision == session.precision == "fp32"
    assert manifest.versions["torch"]
    assert manifest.stage == "created"


def test_runs_are_numbered_and_an_unfinished_one_is_resumed(space_file):
    first = begin(space_file)
    assert first.run.path == RESULTS / "tiny-1"
    assert begin(space_file).run.path == RESULTS / "tiny-1"
    finish(first)
    assert begin(space_file).run.path == RESULTS / "tiny-2"


def test_without_a_folder_another_configuration_is_another_run(space_file):
    begin(space_file)
    assert begin(space_file, settings=["train.epochs=7"]).run.path == RESULTS / "tiny-2"
    assert begin(space_file, space_settings=["depth=2"]).run.path == RESULTS / "tiny-3"


def test_an_empty_folder_becomes_the_run(space_file, tmp_path):
    (tmp_path / "empty").mkdir()
    assert begin(space_file, tmp_path / "empty").run.manifest.stage == "created"


@pytest.mark.parametrize(
    ("settings", "space_settings", "difference"),
    [
        (["train.epochs=7"], [], "train.epochs: 3 in the run, 7 asked"),
        (["seed=1"], [], "seed: 0 in the run, 1 asked"),
        ([], ["depth=2"], "space_digest: "),
        (["precision=bf16"], [], "precision: fp32 in the run, bf16 now"),
    ],
    ids=["epochs", "seed", "space", "precision"],
)
def test_a_folder_of_another_run_is_refused_with_the_difference(
    space_file, tmp_path, settings, space_settings, difference
):
    begin(space_file, tmp_path / "r")
    before = {path: path.read_bytes() for path in entries(tmp_path) if path.is_file()}
    with pytest.raises(RunError) as caught:
        begin(space_file, tmp_path / "r", settings, space_settings)
    assert difference in caught.value.message
    assert "another --run DIR" in caught.value.hint
    assert {path: path.read_bytes() for path in entries(tmp_path) if path.is_file()} == before


def test_all_differences_are_said_at_once(space_file, tmp_path):
    begin(space_file, tmp_path / "r")
    with pytest.raises(RunError) as caught:
        begin(space_file, tmp_path / "r", ["train.epochs=7", "train.lr=0.5"], ["depth=2"])
    assert len(caught.value.message.splitlines()) == 5
    assert caught.value.message.endswith("  depth: [1, 2] in the run, [2] asked")


@pytest.mark.parametrize("kind", ["file", "folder with something else"])
def test_what_is_no_run_is_not_written_over(space_file, tmp_path, kind):
    place = tmp_path / "mine"
    if kind == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "notes.txt").write_text("mine")
    before = entries(tmp_path)
    with pytest.raises(RunError, match="is not a run"):
        begin(space_file, place)
    assert entries(tmp_path) == before


def test_data_with_another_number_of_classes_is_one_clear_error(space_file, tmp_path):
    before = entries(tmp_path)
    with pytest.raises(ConfigError, match="num_classes is 7, the data has 10 classes") as caught:
        begin(space_file, tmp_path / "r", space_settings=["backbone.num_classes=7"])
    assert "num_classes: auto" in caught.value.hint
    assert entries(tmp_path) == before


@pytest.mark.parametrize(
    ("settings", "space_settings", "error"),
    [(["data.spec=folder:nowhere"], [], DataError), ([], ["depth=0"], SearchSpaceError)],
)
def test_a_run_that_cannot_begin_leaves_nothing_behind(space_file, tmp_path, settings, space_settings, error):
    before = entries(tmp_path)
    with pytest.raises(error):
        begin(space_file, tmp_path / "r", settings, space_settings)
    assert entries(tmp_path) == before


# --- reopening ---


def write_images(root, seed=0):
    rng = np.random.default_rng(seed)
    for number in range(30):
        folder = root / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def test_a_reopened_run_is_what_was_started(space_file, tmp_path):
    started = begin(space_file, tmp_path / "r", ["train.lr=0.5"], ["depth=2"])
    again = reopen(tmp_path / "r", Reporter(quiet=True))
    for field in ("space", "config", "device", "precision"):
        assert getattr(again, field) == getattr(started, field)
    assert again.data.info.hashes == started.data.info.hashes


def test_a_run_moved_elsewhere_reopens(space_file, tmp_path):
    begin(space_file, tmp_path / "r")
    shutil.move(tmp_path / "r", tmp_path / "moved")
    space_file.unlink()
    assert reopen(tmp_path / "moved", Reporter(quiet=True)).space.name == "tiny"


def test_changed_images_are_seen_when_a_run_is_reopened_or_resumed(space_file, tmp_path):
    write_images(tmp_path / "images")
    settings = [f"data.spec=folder:{tmp_path / 'images'}", "data.search_fraction=0.3"]
    session = begin(space_file, tmp_path / "r", settings)
    assert session.space.backbone.num_classes == 2
    next((tmp_path / "images" / "class0").iterdir()).unlink()
    with pytest.raises(RunError, match="was made from other data") as caught:
        reopen(tmp_path / "r", Reporter(quiet=True))
    assert "split: " in caught.value.message
    with pytest.raises(RunError, match="holds another run"):
        begin(space_file, tmp_path / "r", settings)


def moved_run(space_file, home, monkeypatch, spec="folder:images"):
    """A run that was started in `home` on images there, with a relative path."""
    write_images(home / "images")
    monkeypatch.chdir(home)
    return begin(space_file, Path("runs/r"), [f"data.spec={spec}"]).data.info.hashes


@pytest.mark.parametrize("moves", ["nothing", "together", "the run", "the run of an old version"])
def test_a_run_finds_its_images_from_any_folder(space_file, tmp_path, monkeypatch, moves):
    home, there, away = tmp_path / "home", tmp_path / "there", tmp_path / "away"
    away.mkdir()
    hashes = moved_run(space_file, home, monkeypatch)
    monkeypatch.chdir(away)
    run = home / "runs" / "r"
    if moves == "together":
        run = home.rename(there) / "runs" / "r"
    elif moves == "the run":
        run = run.rename(away / "r")
    elif moves == "the run of an old version":
        manifest = json.loads((run / "manifest.json").read_text())
        del manifest["images"]
        (run / "manifest.json").write_text(json.dumps(manifest))
    assert reopen(run, Reporter(quiet=True)).data.info.hashes == hashes
    assert (run / "config.yaml").read_text().count("folder:images\n") == 1


def test_images_that_moved_are_named_and_remembered(space_file, tmp_path, monkeypatch):
    home, away = tmp_path / "home", tmp_path / "away"
    hashes = moved_run(space_file, home, monkeypatch)
    run = home / "runs" / "r"
    away.mkdir()
    (home / "images").rename(away / "pictures, all")
    with pytest.raises(DataError, match=r"the images of .*: no such folder: images") as caught:
        reopen(run, Reporter(quiet=True))
    assert "--data SPEC" in caught.value.hint
    monkeypatch.chdir(away)
    assert reopen(run, Reporter(quiet=True), "folder:pictures, all").data.info.hashes == hashes
    monkeypatch.chdir(tmp_path)
    assert reopen(run, Reporter(quiet=True)).data.info.hashes == hashes
    assert begin(space_file, run, ["data.spec=folder:away/pictures, all"]).data.info.hashes == hashes


def test_other_images_are_refused_with_the_splits_that_differ(space_file, tmp_path, monkeypatch):
    hashes = moved_run(space_file, tmp_path / "home", monkeypatch)
    write_images(tmp_path / "others", seed=1)
    run = tmp_path / "home" / "runs" / "r"
    before = (run / "manifest.json").read_bytes()
    with pytest.raises(RunError) as caught:
        reopen(run, Reporter(quiet=True), f"folder:{tmp_path / 'others'}")
    for name, digest in hashes.items():
        assert f"{name} split: {digest} in the run, " in caught.value.message
    assert (run / "manifest.json").read_bytes() == before
    with pytest.raises(RunError, match="was made from other data than digits"):
        reopen(run, Reporter(quiet=True), "digits")
    for parts in ("others,images", "no/such/*"):
        with pytest.raises(DataError, match="the images of"):
            reopen(run, Reporter(quiet=True), f"folder:{parts}")


@pytest.mark.parametrize("three", [False, True], ids=["two splits", "three splits"])
def test_a_run_that_carved_its_search_split_goes_on(space_file, tmp_path, three):
    """In configurations of earlier versions `data.search_fraction` is 0.2, where it is null now."""
    for seed, split in enumerate(("train", "val", "test")[: 3 if three else 1]):
        write_images(tmp_path / "images" / split, seed)
    spec = f"data.spec=folder:{tmp_path / 'images'}"
    began = begin(space_file, tmp_path / "r", [spec, "data.search_fraction=0.2"])
    assert reopen(tmp_path / "r", Reporter(quiet=True)).data.info.hashes == began.data.info.hashes
    if three:
        with pytest.raises(RunError, match="split: ") as caught:
            begin(space_file, tmp_path / "r", [spec])
        assert "search_fraction" not in caught.value.message
    else:
        assert begin(space_file, tmp_path / "r", [spec]).run.path == tmp_path / "r"
    with pytest.raises(RunError, match=r"data.search_fraction: 0\.2 in the run, 0\.3 asked"):
        begin(space_file, tmp_path / "r", [spec, "data.search_fraction=0.3"])


def test_a_damaged_test_image_stops_a_run_before_there_is_one(space_file, tmp_path):
    for seed, split in enumerate(("train", "test")):
        write_images(tmp_path / "images" / split, seed)
    victim = tmp_path / "images" / "test" / "class0" / "0.png"
    victim.write_bytes(victim.read_bytes()[:-30])
    settings = [f"data.spec=folder:{tmp_path / 'images'}"]
    with pytest.raises(DataError, match="1 unreadable image") as caught:
        begin(space_file, tmp_path / "r", settings)
    assert str(victim) in caught.value.message
    assert not (tmp_path / "r").exists()
    assert begin(space_file, tmp_path / "r", [*settings, "data.skip_bad_images=true"]).run.path.exists()


def test_no_run_cannot_be_reopened(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        reopen(tmp_path / "nothing", Reporter(quiet=True))


def test_a_session_cannot_be_changed(space_file, tmp_path):
    session = begin(space_file, tmp_path / "r")
    with pytest.raises(dataclasses.FrozenInstanceError):
        session.precision = "bf16"
    assert RunDirectory.open(tmp_path / "r").path == session.run.path


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "\udce9", "a\u202eb"])
def test_a_run_whose_name_cannot_be_printed_is_refused(space_file, tmp_path, name):
    with pytest.raises(RunError, match="printable"):
        begin(space_file, tmp_path / name)
    assert sorted(tmp_path.iterdir()) == [space_file]


@pytest.mark.parametrize("inside", ["inner", "supernet/a/b", "supernets/x"])
def test_a_run_within_another_is_refused(space_file, tmp_path, inside):
    outer = begin(space_file, tmp_path / "r").run.path
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match="lies within the run"):
        begin(space_file, outer / inside)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("policy", ["train.auto_augment=abc", "tune.parameters.train.auto_augment=[rand-m5-n1, abc]"])
def test_an_augmentation_that_timm_cannot_use_stops_a_run_before_anything_is_written(space_file, tmp_path, policy):
    with pytest.raises(ConfigError, match=r"train\.auto_augment: timm cannot use 'abc'"):
        begin(space_file, tmp_path / "r", [policy])
    assert sorted(tmp_path.iterdir()) == [space_file]


def test_a_network_that_no_memory_holds_stops_a_run_before_anything_is_written(space_file, tmp_path):
    with pytest.raises(SearchSpaceError, match="GB of memory"):
        begin(space_file, tmp_path / "r", space_settings=["embed_dim=65536", "layers.mlp_ratio=1024"])
    assert sorted(tmp_path.iterdir()) == [space_file]


SEEDS = Path(__file__).resolve().parents[1] / "fixtures" / "old_run"


def seeded(home, space_file, monkeypatch, run="runs/r"):
    """A run that was started in `home` with a relative path to an earlier one."""
    home.mkdir(exist_ok=True)
    if not (home / "earlier").exists():
        shutil.copytree(SEEDS, home / "earlier")
    monkeypatch.chdir(home)
    return begin(space_file, Path(run), ["search.seed_runs=[earlier]"])


@pytest.mark.parametrize("moves", ["nothing", "together", "the run", "a run of an old version"])
def test_relative_paths_of_a_run_lead_to_the_same_from_any_folder(space_file, tmp_path, monkeypatch, moves):
    home, there, away = tmp_path / "home", tmp_path / "there", tmp_path / "away"
    away.mkdir()
    seeded(home, space_file, monkeypatch)
    monkeypatch.chdir(away)
    run = home / "runs" / "r"
    if moves == "together":
        home, run = home.rename(there), there / "runs" / "r"
    elif moves == "the run":
        run = run.rename(away / "r")
    elif moves == "a run of an old version":
        manifest = json.loads((run / "manifest.json").read_text())
        del manifest["folders"]
        (run / "manifest.json").write_text(json.dumps(manifest))
    (found,) = reopen(run, Reporter(quiet=True)).located.search.seed_runs
    assert Path(found).resolve() == home / "earlier"
    assert RunDirectory.open(run).config()["search"]["seed_runs"] == ["earlier"], "as it was written"


def test_a_run_is_resumed_from_another_folder_by_any_path_to_the_same(space_file, tmp_path, monkeypatch):
    home, away = tmp_path / "home", tmp_path / "away"
    seeded(home, space_file, monkeypatch)
    away.mkdir()
    monkeypatch.chdir(away)
    run = home / "runs" / "r"
    for written in ("../home/earlier", "earlier", str(home / "earlier")):
        session = begin(space_file, run, [f"search.seed_runs=[{written}]"])
        assert Path(session.located.search.seed_runs[0]).resolve() == home / "earlier"
    shutil.copytree(SEEDS, away / "earlier")
    with pytest.raises(RunError, match="holds another run") as caught:
        begin(space_file, run, ["search.seed_runs=[earlier]"])
    assert f"{away / 'earlier'}" in caught.value.message


def test_a_run_with_its_images_in_a_relative_path_is_resumed_from_another_folder(space_file, tmp_path, monkeypatch):
    home, away = tmp_path / "home", tmp_path / "away"
    hashes = moved_run(space_file, home, monkeypatch)
    away.mkdir()
    monkeypatch.chdir(away)
    assert begin(space_file, home / "runs" / "r", ["data.spec=folder:images"]).data.info.hashes == hashes


def test_a_missing_seed_run_is_found_out_before_there_is_a_run(space_file, tmp_path):
    with pytest.raises(RunError, match="gone does not exist"):
        begin(space_file, tmp_path / "r", ["search.seed_runs=[gone]"])
    assert not (tmp_path / "r").exists()


def test_a_run_keeps_its_latency_profile_whatever_becomes_of_the_file(space_file, tmp_path, monkeypatch):
    profile, run = tmp_path / "p.json", tmp_path / "r"
    packed_profile().write(profile)
    settings = ["evaluate.targets=['profile:p.json']"]
    session = begin(space_file, run, settings)
    kept = (f"profile:{run / 'profiles' / 'latency_ms.json'}",)
    assert session.located.evaluate.targets == kept
    assert RunDirectory.open(run).config()["evaluate"]["targets"] == ["profile:p.json"], "as it was written"
    profile.rename(tmp_path / "copy.json")
    for same in (settings, ["evaluate.targets=['profile:copy.json']"]):
        assert begin(space_file, run, same).located.evaluate.targets == kept
    packed_profile(cores=3).write(profile)
    assert reopen(run, Reporter(quiet=True)).located.evaluate.targets == kept
    with pytest.raises(RunError, match=r"holds another run:\n  evaluate.targets"):
        begin(space_file, run, settings)
    (tmp_path / "elsewhere").mkdir()
    moved = run.rename(tmp_path / "elsewhere" / "r")
    profile.unlink()
    assert Path(reopen(moved, Reporter(quiet=True)).located.evaluate.targets[0].removeprefix("profile:")).exists()
