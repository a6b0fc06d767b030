"""Options that are declared once, and what they stand for."""

import inspect
import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from nas.base.errors import ConfigError
from nas.cli.options import (
    CONFIG_KEYS,
    DEFAULT_TRIALS,
    PANELS,
    RunOptions,
    SearchOptions,
    TrainOptions,
    takes,
    worker_count,
)
from nas.runs.manifest import RunPlan
from nas.settings.config import RunConfig, flat_config


def invoked(without, *arguments):
    """What a command that takes the options gets."""
    got, app = [], typer.Typer()

    @app.command()
    @takes(RunOptions, without)
    def command(space: Annotated[Path, typer.Argument()] = Path("default"), *, options: RunOptions) -> None:
        """A command."""
        got.append((space, options))

    done = CliRunner().invoke(app, arguments)
    return got[0] if got else done


def test_a_command_gets_its_options_as_one_value():
    space, options = invoked((), "my.yaml", "--epochs=3", "--target=torch-cpu", "--skip-bad-images", "-f", "csv")
    assert space == Path("my.yaml")
    assert options == RunOptions(epochs=3, target=["torch-cpu"], skip_bad_images=True, format_="csv")
    assert invoked(()) == (Path("default"), RunOptions())


def test_what_a_command_lacks_is_an_unknown_option_and_keeps_its_default():
    assert invoked(("epochs", "run"), "--seed=4")[1] == RunOptions(seed=4)
    assert invoked(("epochs", "run"), "--epochs=3").exit_code == 2


def test_a_command_can_be_called_without_any_option():
    got = []
    takes(RunOptions)(lambda *, options: got.append(options))()
    assert got == [RunOptions()]


def test_the_options_stand_in_the_order_of_their_panels_and_then_of_their_declaration():
    @takes(TrainOptions, ("trials",))
    def command(space: str, *, options: TrainOptions) -> None: ...

    names = [field.name for field in fields(RunOptions) if field.name != "trials"]
    shown = [*inspect.signature(command).parameters]
    assert (shown[0], sorted(shown[1:])) == ("space", sorted(names))
    for panel in PANELS.values():
        assert [name for name in shown if name in panel] == [name for name in names if name in panel]
    assert shown[1:3] == ["data", "skip_bad_images"]


def test_two_limits_are_one_too_many():
    with pytest.raises(ConfigError, match="--trials and --minutes are two limits"):
        SearchOptions(trials=1, minutes=1.0)
    assert RunOptions(trials=1, minutes=1.0).budget().trials == 1  # the plan has the minutes


def test_every_named_option_is_a_key_of_the_configuration():
    given = RunOptions(
        data="folder:x",
        epochs=0,
        sampler="random",
        init="timm:a",
        teacher="timm:b",
        seed=0,
        device="cpu",
        precision="fp32",
        target=["torch-cpu", "onnxruntime-cpu"],
        skip_bad_images=True,
        settings=["layers.num_heads=2", "train.lr=0.5", "seed=7"],
    )
    for_space, config = given.resolve()
    assert for_space == ("layers.num_heads=2",)
    flat = flat_config(config.model_dump(mode="json"))
    for name, key in CONFIG_KEYS.items():
        assert flat[key] == getattr(given, name), name
    assert config.train.lr == 0.5


def test_without_options_the_configuration_has_its_defaults():
    assert RunOptions().resolve() == ((), RunConfig())


def test_a_search_has_trials_or_minutes_and_no_finalists():
    assert [SearchOptions(**given).budget().trials for given in ({}, {"minutes": 1.0})] == [DEFAULT_TRIALS, None]
    budget = SearchOptions(minutes=1.5).budget()
    assert (budget.minutes, budget.finalists) == (1.5, 0)


def test_a_plan_says_what_is_not_given():
    plan = RunPlan(minutes=3.0, epochs=4, trials=50, finalists=6, finalist_epochs=2.0)
    found = [RunOptions(**given).budget(plan) for given in ({}, {"trials": 9}, {"finalists": 0})]
    assert [(budget.trials, budget.finalists) for budget in found] == [(50, 6), (9, 6), (50, 0)]


@pytest.mark.parametrize(
    ("options", "trials", "workers", "train_workers"),
    [
        ({}, DEFAULT_TRIALS, len(os.sched_getaffinity(0)), 0),
        ({"trials": 3, "workers": 2}, 3, 2, 2),
        ({"minutes": 0.5, "workers": 0}, DEFAULT_TRIALS, 0, 0),
    ],
)
def test_a_budget_of_a_run_is_in_trials(options, trials, workers, train_workers):
    budget = RunOptions(**options).budget()
    assert (budget.trials, budget.minutes) == (trials, None)
    assert (budget.workers, budget.train_workers) == (workers, train_workers)


def test_workers_are_one_a_core_unless_they_are_given():
    assert [worker_count(given) for given in (None, 0, 3)] == [len(os.sched_getaffinity(0)), 0, 3]
