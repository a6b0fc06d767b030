"""The `tune` section: its domains, what is wrong with them, and when trials are scored."""

import pytest

from nas.base.errors import ConfigError, InputFileError
from nas.runs.supernets import check_supernet_trials
from nas.settings.config import RunConfig, TrainConfig, resolve_config
from nas.settings.tune import Range, TuneConfig, baseline, is_whole
from nas.space.space import parse_space

SPACE = """
name: tiny
backbone: {image_size: 8, patch_size: 2, num_classes: 10, head_dim: 8}
embed_dim: [16, 24]
depth: [1, 2]
layers: {num_tokens: [16, 4], num_heads: [1, 2]}
constraints: {max_params: 100e3}
"""


def problems(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve_config(path)
    return [line.strip() for line in caught.value.message.splitlines()[1:]]


def sub_space_error(tmp_path, *settings, workers=None):
    path = tmp_path / "tiny.yaml"
    path.write_text(SPACE)
    with pytest.raises((ConfigError, InputFileError)) as caught:
        check_supernet_trials(resolve_config(settings=settings), path, (), workers)
    return caught.value.message


def test_a_file_and_settings_say_the_same(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "tune:\n  keep: 3\n  parameters:\n"
        "    train.lr: {low: 5e-4, high: 4e-3, log: true}\n    space.embed_dim: [[96], [96, 128]]\n"
    )
    by_settings = resolve_config(
        settings=[
            "tune.keep=3",
            "tune.parameters.train.lr={low: 5e-4, high: 4e-3, log: true}",
            "tune.parameters.space.embed_dim=[[96], [96, 128]]",
        ]
    )
    assert resolve_config(path).tune == by_settings.tune
    assert by_settings.tune.parameters == {
        "train.lr": Range(low=5e-4, high=4e-3, log=True),
        "space.embed_dim": ([96], [96, 128]),
    }


def test_the_section_survives_being_saved_in_a_run():
    config = resolve_config(settings=["tune.parameters.space.layers.num_heads=[[1], [1, 2]]"])
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
    assert RunConfig.model_validate(RunConfig().model_dump(mode="json")) == RunConfig()


def test_every_wrong_key_and_candidate_is_named_with_its_line(tmp_path):
    found = problems(
        tmp_path,
        "tune:\n"
        "  parameters:\n"
        "    train.lr: {low: -1, high: 1}\n"
        "    train.num_random: [1, 2.5, -1]\n"
        "    train.learning_rate: [1]\n"
        "    train.epochs: [1, 2]\n"
        "    space.embed_dim: {low: 1, high: 2}\n"
        "    search.sampler: [tpe]\n",
    )
    assert found == [
        "line 3: tune.parameters.train.lr: must be more than 0, got -1.0",
        "line 4: tune.parameters.train.num_random: must be a whole number, got 2.5",
        "line 4: tune.parameters.train.num_random: must be at least 0, got -1",
        "line 5: tune.parameters.train.learning_rate: not train.KEY or space.KEY of the space",
        "line 6: tune.parameters.train.epochs: cannot be varied: all trials train equally long, and bad ones are "
        "stopped earlier; set train.epochs itself",
        "line 7: tune.parameters.space.embed_dim: must be a list of choices, each a value of that key of the space",
        "line 8: tune.parameters.search.sampler: not train.KEY or space.KEY of the space",
    ]


@pytest.mark.parametrize(
    ("domain", "problem"),
    [
        ("[]", "needs at least one choice"),
        ("[1, 1]", "names a choice twice: [1, 1]"),
        ("3", "must be a list of choices, or {low: ..., high: ..., log: true}, got 3"),
        ("{low: 2, high: 1}", "low must be less than high, got 2 and 1"),
        ("{low: 0, high: 1, log: true}", "low must be more than 0 where log is true, got 0"),
        ("{low: 1}", "high: required, but missing"),
        ("{low: 1, high: 2, step: 1}", "step: unknown key; known here: low, high, log"),
    ],
)
def test_a_wrong_domain_is_named_with_its_rule(tmp_path, domain, problem):
    assert problems(tmp_path, f"tune: {{parameters: {{train.lr: {domain}}}}}") == [
        f"line 1: tune.parameters.train.lr: {problem}"
    ]


def test_the_default_parameters_hold_the_default_configuration():
    """So the first trial of all is the training that a run without trials would be."""
    for rate in (2e-3, 1e-3, 2.5e-4):  # of supernets 96, 192 and 768 wide
        recipe = TrainConfig(lr=rate)
        found = baseline(TuneConfig(), recipe)
        assert found is not None
        assert set(found) == set(TuneConfig().parameters)
        assert found["train.lr"] == rate
    assert baseline(TuneConfig(), TrainConfig()) is None


def test_a_configuration_outside_the_domains_is_no_trial():
    tune = TuneConfig.model_validate({"parameters": {"train.lr": {"low": 0.1, "high": 0.2}}})
    assert baseline(tune, TrainConfig(lr=0.15)) == {"train.lr": 0.15}
    assert baseline(tune, TrainConfig(lr=0.3)) is None
    assert baseline(TuneConfig.model_validate({"parameters": {"space.depth": [[1]]}}), TrainConfig()) is None


def test_whole_numbers_are_told_from_others():
    whole = [name for name in ("num_random", "batch_size", "lr", "drop_path") if is_whole(TrainConfig, name)]
    assert whole == ["num_random", "batch_size"]


@pytest.mark.parametrize(
    ("values", "epochs", "rungs"),
    [
        ({}, 30, [3, 9, 27, 30]),
        ({}, 1, [1]),
        ({}, 9, [1, 3, 9]),
        ({"grace": 4, "reduction": 2}, 16, [4, 8, 16]),
        ({"grace": 50}, 16, [16]),
    ],
)
def test_rungs_grow_by_the_reduction_and_end_with_the_training(values, epochs, rungs):
    assert TuneConfig(**values).rungs(epochs) == rungs


def test_a_choice_that_is_no_part_of_the_space_is_named(tmp_path):
    message = sub_space_error(
        tmp_path,
        "tune.parameters.space.embed_dim=[[16], [16, 32], [0]]",
        "tune.parameters.space.backbone.head_dim=[4]",
        "tune.parameters.space.nonsense=[1]",
        "tune.parameters.space.constraints.max_params=[1, 50e3]",
    )
    assert [line.strip() for line in message.splitlines()[1:]] == [
        "tune.parameters.space.embed_dim: [16, 32] has choices that the search space has not",
        "tune.parameters.space.embed_dim: --set embed_dim[0]: must be at least 1, got 0",
        "tune.parameters.space.backbone.head_dim: 4 changes what is not searched",
        "tune.parameters.space.nonsense: --set nonsense: unknown key; known here: name, backbone, embed_dim, stem, "
        "depth, layers, overrides, rules, constraints, seeds",
        "tune.parameters.space.constraints.max_params: line 7: constraints: no architecture meets at most 1 "
        "parameters; the least possible is 3,442 parameters",
    ]


def test_without_ray_or_epochs_there_are_no_trials(tmp_path):
    assert "--workers 0" in sub_space_error(tmp_path, workers=0)
    assert "train.epochs 0" in sub_space_error(tmp_path, "train.epochs=0")


def test_the_sub_spaces_of_a_space_made_in_python_are_checked_too():
    space = parse_space(SPACE, "tiny.yaml")
    check_supernet_trials(resolve_config(settings=("tune.parameters={space.depth: [1, 2]}",)), space, (), 1)
    with pytest.raises(ConfigError, match="has choices that the search space has not"):
        check_supernet_trials(resolve_config(settings=("tune.parameters={space.embed_dim: [[32]]}",)), space, (), 1)
