"""What a supernet trial changes of the search space and of the recipe, and whether that can be done."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.config import RunConfig
from nas.errors import ConfigError, InputFileError
from nas.space import SearchSpace
from nas.space_file import parse_space
from nas.tune_config import SPACE, TRAIN
from nas.yaml_file import read_text


def space_settings(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings of the search space in a trial's parameters, as `--set` takes them."""
    return tuple(
        f"{key.removeprefix(SPACE + '.')}={json.dumps(value)}"
        for key, value in parameters.items()
        if key.startswith(f"{SPACE}.")
    )


def train_settings(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the recipe in a trial's parameters."""
    return {
        key.removeprefix(f"{TRAIN}."): value
        for key, value in parameters.items()
        if key.startswith(f"{TRAIN}.")
    }


def without_ray() -> ConfigError:
    """What is wrong with supernet trials where `--workers` is 0."""
    return ConfigError(
        "supernet trials run on Ray, which --workers 0 does without", hint="--workers 1 for one at a time"
    )


def check_supernet_trials(
    config: RunConfig, space_file: Path, settings: Sequence[str], workers: int | None
) -> None:
    """Find out what stands against supernet trials, before anything is made or trained.

    Args:
        config: With what is to be tried.
        space_file: The search space.
        settings: Changes of the whole space.
        workers: `--workers`, where it is given.

    Raises:
        SearchSpaceError: The space itself is wrong.
        ConfigError: Nothing is to be trained, or without Ray; or lists every value that makes no sub-space.
    """
    if config.train.epochs == 0:
        raise ConfigError("train.epochs 0 leaves supernet trials nothing to train", hint="--epochs N")
    if workers == 0:
        raise without_ray()
    text, source = read_text(space_file), str(space_file)
    space = parse_space(text, source, settings)
    problems = []
    for key, domain in config.tune.parameters.items():
        for value in domain if isinstance(domain, tuple) and key.startswith(f"{SPACE}.") else ():
            try:
                sub = parse_space(text, source, (*settings, *space_settings({key: value})))
                problems += [f"tune.parameters.{key}: {reason}" for reason in _outside(space, sub, value)]
            except InputFileError as error:
                problems += [f"tune.parameters.{key}: {reason}" for reason in error.problems]
    if problems:
        raise ConfigError(
            f"{source}: {len(problems)} problem{'s' if len(problems) > 1 else ''} with sub-spaces\n"
            + "\n".join(f"  {problem}" for problem in problems),
            hint="each choice of tune.parameters.space.KEY is a part of what KEY is in the search space",
        )


def _outside(space: SearchSpace, sub: SearchSpace, value: Any) -> Iterator[str]:
    """Why `sub` is no part of `space`: all scores and the front are reckoned in the whole space."""
    whole = space.choices()
    if sub.backbone != space.backbone or sub.name != space.name:
        yield f"{json.dumps(value)} changes what is not searched"
    elif any(set(values) - set(whole.get(name, ())) for name, values in sub.choices().items()):
        yield f"{json.dumps(value)} has choices that the search space has not"
    elif reasons := space.why_not(sub.largest()):
        yield f"{json.dumps(value)} leaves the search space: {reasons[0]}"
