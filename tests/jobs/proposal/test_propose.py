"""`init`: what it writes can be run, says why it is so, and overwrites nothing."""

from pathlib import Path

import numpy as np
import pytest
from image_files import encode, write_folder, write_parquet

from nas.base.errors import ConfigError, DataError
from nas.base.progress import Reporter
from nas.jobs.proposal.propose import Files, propose
from nas.settings.config import resolve_config
from nas.space.space import read_space

QUIET = Reporter(quiet=True)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def proposed(spec="digits", to=None, settings=(), **options):
    return propose(spec, to, settings, QUIET, **options)


def test_what_is_written_is_read_as_a_space_and_a_configuration(tmp_path):
    values = proposed()
    space, config = read_space("digits.yaml"), resolve_config(tmp_path / "digits.config.yaml")
    assert (values["space_file"], values["config_file"]) == ("digits.yaml", "digits.config.yaml")
    assert config.data.spec == "digits"
    assert config.train.epochs is None  # as many, or what --minutes plans
    assert "\n  # epochs: 118\n" in (Path(values["config_file"])).read_text()
    assert space.with_num_classes(10).size() == values["architectures"]
    assert values["command"] == "nas run digits.yaml --config digits.config.yaml --trials 200"
    assert values["images"] == {
        "train": 1151, "search": 287, "classes": 10, "of_a_class": [111, 117], "test": 359, "shorter_side": 8,
    }  # fmt: skip
    assert values["forecast"] is None
    assert values["training_core_s"] > 0


def test_every_choice_says_why():
    values = proposed()
    assert all(row["choice"] and row["value"] and len(row["why"]) > 10 for row in values["choices"])
    assert "# 60, or as many as make 2,000 steps" in Path("digits.config.yaml").read_text()
    assert "# image_size: " in Path("digits.yaml").read_text()


def test_few_search_images_are_warned_of():
    (warning,) = proposed()["warnings"]
    assert warning.startswith("287 search images: at 80 % the standard error of top-1 is 2.4 points")
    assert warning.endswith("1,600 images bring it to 1 point")


def test_a_class_with_few_images_is_named(tmp_path):
    write_folder(tmp_path / "pets")
    warnings = proposed("folder:pets")["warnings"]
    assert "the class cat has 6 training images: hardly enough to learn it" in warnings


def test_classes_of_different_size_count_alike(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [encode(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(140)]
    write_parquet(tmp_path / "p.parquet", pictures, [0] * 120 + [1] * 10 + [2] * 10)
    values = proposed("parquet:p.parquet", tmp_path / "new" / "mine.yaml")
    config = resolve_config(tmp_path / "new" / "mine.config.yaml")
    assert config.train.class_weights == "balanced"
    assert config.search.objectives == ("balanced_top1", "macs", "latency_ms")
    assert values["images"]["shorter_side"] == 40
    assert read_space(tmp_path / "new" / "mine.yaml").backbone.image_size == 32


def test_what_was_given_stands_and_is_not_chosen(tmp_path):
    values = proposed(settings=["train.epochs=3", "data.search_fraction=0.3", "seed=1"])
    config = resolve_config(tmp_path / "digits.config.yaml")
    assert (config.train.epochs, config.data.search_fraction, config.seed) == (3, 0.3, 1)
    assert "train.epochs" not in [row["choice"] for row in values["choices"]]


def test_photographs_start_from_trained_weights_which_the_configuration_names(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [encode(rng.integers(0, 256, (130, 140, 3), dtype=np.uint8)) for _ in range(30)]
    write_parquet(tmp_path / "p.parquet", pictures, [i % 3 for i in range(30)])
    proposed("parquet:p.parquet", settings=["device=cpu"])
    config = resolve_config(tmp_path / "p.config.yaml")
    assert (config.init, config.init_ordered, config.device) == ("timm:deit_tiny_patch16_224", True, "cpu")
    assert read_space("p.yaml").backbone.image_size == 128


@pytest.mark.parametrize("there", ["digits.yaml", "digits.config.yaml"])
def test_nothing_is_overwritten(tmp_path, there):
    (tmp_path / there).write_text("mine")
    with pytest.raises(ConfigError, match="is there already, and nothing is overwritten") as caught:
        proposed()
    assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_what_is_wrong_with_the_images_is_said_before_a_file_is_written(tmp_path):
    write_folder(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "bad.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="1 unreadable image"):
        proposed("folder:pets")
    with pytest.raises(DataError, match="no such folder"):
        proposed("folder:nowhere")
    with pytest.raises(ConfigError, match="unknown key"):
        proposed(settings=["train.epoch_count=3"])
    with pytest.raises(ConfigError, match="--set layers: a key of the search space, which is not changed here"):
        proposed(settings=["layers.num_heads=2"])
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]


@pytest.mark.parametrize(
    ("to", "spec", "names"),
    [
        (None, "folder:/data/My Pets", ("My_Pets.yaml", "My_Pets.config.yaml")),
        ("x.yml", "digits", ("x.yml", "x.config.yml")),
        ("new", "parquet:a/train.parquet,a/test.parquet", ("new/test.yaml", "new/test.config.yaml")),
        (None, "torch/cifar10:..", ("images.yaml", "images.config.yaml")),
    ],
)
def test_files_are_named_after_the_images_unless_they_are_named(tmp_path, to, spec, names):
    files = Files.at(None if to is None else tmp_path / to, spec)
    where = tmp_path if to else None
    assert tuple(str(path.relative_to(where) if where else path) for path in (files.space, files.config)) == names
