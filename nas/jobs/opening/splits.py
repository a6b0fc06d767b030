"""How the images of a run are split that starts from the weights of another: as that one's were."""

from collections.abc import Mapping
from pathlib import Path

from nas.base import ConfigError, Reporter
from nas.runs import MANIFEST, RunDirectory, config_of_run
from nas.settings import RunConfig


def split_as_its_start(config: RunConfig, before: RunDirectory | None, init: Path) -> RunConfig:
    """The configuration with the splits of the run whose weights it starts from: of these none may be searched on."""
    if not config.init or config.data.split_seed is not None:
        return config
    if before is not None:
        seed = config_of_run(before).data.split_seed
    else:
        seed = config_of_run(RunDirectory.open(init)).seed_of_splits if (init / MANIFEST).is_file() else None
    if seed in (None, config.seed):
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"split_seed": seed})})


def check_splits_of_start(
    config: RunConfig, start: RunDirectory, hashes: Mapping[str, str], reporter: Reporter
) -> None:
    """Require that images which weights were trained on are not searched or tested on, as far as that is known.

    Raises:
        ConfigError: They are split otherwise because that was asked for.
    """
    there = config_of_run(start)
    if start.manifest.splits == hashes or there.data.spec != config.data.spec:
        return
    keys = {"split_seed": there.seed_of_splits, **there.data.model_dump(include={"test_fraction", "search_fraction"})}
    asked = {
        "split_seed": config.seed_of_splits,
        **config.data.model_dump(include={"test_fraction", "search_fraction"}),
    }
    text = f"--init {config.init}: that run split these images otherwise, so its weights have seen some that would be"
    if other := {key: value for key, value in keys.items() if asked[key] != value}:
        words = " ".join(f"--set data.{key}={'null' if value is None else value}" for key, value in other.items())
        raise ConfigError(f"{text} searched or tested on", hint=f"as that run: {words}")
    reporter.line("warning", f"{text} searched or tested on if images came or went")
