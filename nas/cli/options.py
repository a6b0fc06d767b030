"""The options of the command line, each with its type and help; shared by the commands that take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_SPACE = Path("search_spaces/digits.yaml")
DEFAULT_TRIALS = 200


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


SpaceArgument = Annotated[
    Path, typer.Argument(metavar="SPACE.yaml", help="Search space; every key: search_spaces/README.md.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as results/digits-1.")]
FormatOption = Annotated[
    Format | None, typer.Option("--format", "-f", help="Output; table on a terminal, json when piped.")
]
DataOption = Annotated[
    str | None, typer.Option(help="digits | folder:DIR | parquet:TRAIN[,TEST] | a timm spec.")
]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", help="Folder of the run; default results/<space>-<n>. An existing one is resumed."),
]
EpochsOption = Annotated[int | None, typer.Option(help="Passes over the training images.")]
SeedOption = Annotated[int | None, typer.Option(help="Of splits, training and search.")]
InitOption = Annotated[
    str | None,
    typer.Option(help="timm:NAME | local-dir:DIR | file:PATH | a run's folder: weights to start from."),
]
TeacherOption = Annotated[
    str | None,
    typer.Option(
        help="timm:NAME | local-dir:DIR: a trained model of the same classes that teaches every subnet."
    ),
]
DeviceOption = Annotated[str | None, typer.Option(help="auto | cpu | cuda.")]
TensorBoardOption = Annotated[
    bool, typer.Option("--tensorboard", help="Also write TensorBoard's event files, into RUN/tensorboard.")
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        help="Where latency is measured: runtime[:batch=N,threads=N,precision=fp32|bf16] or profile:FILE; "
        "repeatable (docs/latency.md).",
    ),
]
PrecisionOption = Annotated[
    str | None, typer.Option(help="auto | fp32 | bf16; auto is bf16 where the hardware has it.")
]
SamplerOption = Annotated[
    str | None,
    typer.Option(
        help="random | nsga2 | nsga3 | tpe | gp | evolution | predictor: who proposes architectures."
    ),
]
TrialsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Architectures to measure in all, so a finished search can be extended; "
        f"default {DEFAULT_TRIALS}.",
    ),
]
MinutesOption = Annotated[
    float | None, typer.Option(min=0.01, help="Minutes to search, instead of --trials.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Ray workers, one thread each; 0: in this process, without Ray. Default: one per core. "
        "Where it is given, the supernet is trained in as many processes, too.",
    ),
]
TrainWorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Processes that train together, through Ray: the same training as in one. Default: this one alone.",
    ),
]
AddressOption = Annotated[str | None, typer.Option(help="Ray cluster to run on; default: this machine.")]
StorageOption = Annotated[
    str | None, typer.Option(help="Database URL of the Optuna study; default: a journal in the run.")
]
SupernetTrialsOption = Annotated[
    int,
    typer.Option(
        min=1,
        help="Supernets to train in all, with hyper-parameters and sub-spaces as the section `tune` of the "
        "configuration says; the best are searched, and the front is their union.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="section.key=value of the configuration or the space; repeatable."),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file of the configuration.")]
SkipOption = Annotated[
    bool, typer.Option("--skip-bad-images", help="Leave unreadable images out instead of stopping.")
]


DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Check everything, rehearse it for some seconds, and forecast time, memory and disk; write nothing.",
    ),
]


@dataclass(slots=True, kw_only=True)
class Budgeting:
    """The options that decide how long and where."""

    trials: int | None = None
    minutes: float | None = None
    workers: int | None = None
    ray_address: str | None = None
    storage: str | None = None
    supernet_trials: int = 1


@dataclass(slots=True, kw_only=True)
class Recipe:
    """The options that decide the results."""

    config: Path | None = None
    settings: Sequence[str] = ()
    flags: dict[str, Any] | None = None


def recipe_of(
    data: str | None,
    epochs: int | None,
    sampler: str | None,
    init: str | None,
    teacher: str | None,
    seed: int | None,
    device: str | None,
    precision: str | None,
    target: Sequence[str] | None,
    settings: Sequence[str] | None,
    config: Path | None,
    skip_bad_images: bool,
) -> Recipe:
    """The named options as keys of the configuration."""
    flags = {
        "data.spec": data,
        "data.skip_bad_images": skip_bad_images or None,
        "train.epochs": epochs,
        "search.sampler": sampler,
        "init": init,
        "teacher": teacher,
        "seed": seed,
        "device": device,
        "precision": precision,
        "evaluate.targets": target or None,
    }
    return Recipe(config=config, settings=settings or (), flags=flags)
