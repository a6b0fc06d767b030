"""The options of the command line, declared once: type, flag, help, default."""

import functools
import inspect
import os
import shlex
from collections.abc import Callable, Collection
from copy import copy
from dataclasses import Field, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from nas.base import DEFAULT_TRIALS, MOST_MINUTES, ConfigError, command_line

if TYPE_CHECKING:
    from nas.jobs import Budget
    from nas.runs import RunPlan
    from nas.settings import RunConfig

DEFAULT_SPACE = Path("digits")
MOST_TRIALS, MOST_WORKERS = 1_000_000_000, 10_000


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def _known_spaces(incomplete: str) -> list[str]:
    from nas.settings import shipped_spaces

    return [name for name in shipped_spaces() if name.startswith(incomplete)]


def example(words: str) -> str:
    """The last line of a command's help."""
    return f"Example: [bold]{command_line(*shlex.split(words))}[/bold]"


SpaceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SPACE",
        help="Search space: a YAML file, or the name of one that comes with the program (see `spaces`).",
        autocompletion=_known_spaces,
    ),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as results/digits-1.")]
PICK_HELP = "knee | top1 | balanced | fastest | cheapest | digest | architecture file."
PickOption = Annotated[str, typer.Option(help=PICK_HELP)]
FormatOption = Annotated[Format | None, typer.Option("--format", "-f", help="Output; default: table.")]
DataOption = Annotated[
    str | None,
    typer.Option(help="digits | folder:DIR | parquet:PATH | a timm spec such as torch/cifar10:DIR. Default: digits."),
]
MovedDataOption = Annotated[
    str | None,
    typer.Option("--data", help="Where the run's images are now; taken where the hashes of its splits agree."),
]
SeedOption = Annotated[int | None, typer.Option(help="Of splits, training and search. Default: 0.")]
InitOption = Annotated[
    str | None,
    typer.Option(
        help="timm:NAME | hf-hub:OWNER/NAME | local-dir:DIR | file:PATH | a run's folder: weights to start from. "
        "Default: random."
    ),
]
TeacherOption = Annotated[
    str | None,
    typer.Option(
        help="timm:NAME | local-dir:DIR: a trained model of the same classes that teaches every subnet. Default: none."
    ),
]
DeviceOption = Annotated[str | None, typer.Option(help="auto | cpu | cuda. Default: auto.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="section.key=value of the configuration or the space; repeatable.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=MOST_WORKERS,
        help="Ray workers, one thread each; 0: in this process, without Ray. Default: one per core. "
        "Where it is given, the supernet is trained in as many processes, too.",
    ),
]
AloneSeedsOption = Annotated[int, typer.Option(max=10_000, help="Trainings of each; two or more show what noise does.")]
AloneEpochsOption = Annotated[
    int | None, typer.Option(min=1, max=1_000_000, help="Of each training; default: as many as the supernet had.")
]


def worker_count(given: int | None) -> int:
    """Of `WorkersOption`: one per core unless it is given."""
    return len(os.sched_getaffinity(0)) if given is None else given


PANELS = {
    "Data": ("data", "skip_bad_images"),
    "Training": ("epochs", "init", "teacher", "supernet_trials"),
    "Search": ("trials", "minutes", "finalists", "sampler", "target"),
    "Machine": ("workers", "ray_address", "storage", "device", "precision"),
    "Output": ("run", "tensorboard", "dry_run", "format_"),
    "Everything else": ("settings", "config", "seed"),
}
"""Where the options of a run stand in its help."""

CONFIG_KEYS = {
    "data": "data.spec",
    "epochs": "train.epochs",
    "sampler": "search.sampler",
    "init": "init",
    "teacher": "teacher",
    "seed": "seed",
    "device": "device",
    "precision": "precision",
    "target": "evaluate.targets",
    "skip_bad_images": "data.skip_bad_images",
}
"""Keys of the configuration by the option that stands for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of `run`, in the order of its help; `train` and `search` have some. Two limits: a ConfigError."""

    data: DataOption = None
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run; default results/<space>-<n>. An existing one is resumed.")
    ] = None
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training images. Default: 60, or as many as make 2,000 steps.")
    ] = None
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_TRIALS,
            help=f"Architectures to measure in all, so a finished search can be extended; default {DEFAULT_TRIALS}.",
        ),
    ] = None
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Minutes for all of it: half for training, a fifth for the search, the rest for finalists, by a short "
            "rehearsal; --epochs, --trials and --finalists stand where they are given.",
        ),
    ] = None
    finalists: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=10_000,
            help="Candidates that are trained on at the end, two for each level of cost; the best are the front. "
            "0: none. Default: 16, if half of what the supernet cost is enough to tell them apart.",
        ),
    ] = None
    workers: WorkersOption = None
    ray_address: Annotated[str | None, typer.Option(help="Ray cluster to run on; default: this machine.")] = None
    storage: Annotated[
        str | None,
        typer.Option(
            help="Database URL of the Optuna study, or $NAME of a variable with it; default: a journal in the run."
        ),
    ] = None
    supernet_trials: Annotated[
        int,
        typer.Option(
            min=1,
            max=1_000_000,
            help="Supernets to train in all, with hyper-parameters and sub-spaces as the section `tune` of the "
            "configuration says; the best are searched, and the front is their union.",
        ),
    ] = 1
    sampler: Annotated[
        str | None,
        typer.Option(
            help="random | nsga2 | nsga3 | tpe | gp | evolution | predictor: who proposes architectures. "
            "Default: predictor."
        ),
    ] = None
    init: InitOption = None
    teacher: TeacherOption = None
    seed: SeedOption = None
    device: DeviceOption = None
    precision: Annotated[
        str | None, typer.Option(help="auto | fp32 | bf16. Default: auto, bf16 where the hardware has it.")
    ] = None
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Where latency is measured: runtime[:batch=N,threads=N,precision=fp32|bf16|int8] or profile:FILE; "
            "repeatable. Default: torch on the device."
        ),
    ] = None
    settings: SetOption = None
    config: Annotated[Path | None, typer.Option(help="YAML file of the configuration.")] = None
    skip_bad_images: Annotated[
        bool, typer.Option("--skip-bad-images", help="Leave unreadable images out instead of stopping.")
    ] = False
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard's event files, into RUN/tensorboard.")
    ] = False
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check everything, rehearse it for some seconds, and forecast time, memory and disk; write nothing.",
        ),
    ] = False
    format_: FormatOption = None

    def __post_init__(self) -> None:
        if self.finalists == 1:
            raise ConfigError("--finalists 1: nothing to choose from", hint="16 are eight levels of cost, two each")
        if self.minutes is not None and not self.minutes <= MOST_MINUTES:  # nor is it NaN
            raise ConfigError(
                f"--minutes {self.minutes}: at most {MOST_MINUTES:,.0f}", hint="--trials N has no such end"
            )

    def resolve(self) -> tuple[tuple[str, ...], "RunConfig"]:
        """Settings of the space, and the configuration by all its sources, else a ConfigError; imports no torch."""
        from nas.settings import resolve_config, split_settings

        for_space, for_config = split_settings(self.settings or ())
        given = {key: getattr(self, name) for name, key in CONFIG_KEYS.items()}
        flags = {key: value for key, value in given.items() if value is not False and value != []}
        return for_space, resolve_config(self.config, for_config, flags)

    def budget(self, plan: "RunPlan | None" = None) -> "Budget":
        """How long and where; by a plan, if there is one, where nothing else is asked."""
        from nas.jobs import Budget

        return Budget(
            trials=self.trials or (DEFAULT_TRIALS if plan is None else plan.trials),
            workers=worker_count(self.workers),
            train_workers=self.workers or 0,
            ray_address=self.ray_address,
            storage=_from_environment(self.storage),
            supernet_trials=self.supernet_trials,
            finalists=plan.finalists if plan is not None and self.finalists is None else self.finalists,
        )


def _from_environment(storage: str | None) -> str | None:
    """What `$NAME` stands for: a URL with a password belongs neither into a command line nor into a file."""
    if storage is None or not storage.startswith("$"):
        return storage
    name = storage[1:].strip("{}")
    if not (found := os.environ.get(name)):
        raise ConfigError(
            f"--storage {storage}: there is no variable {name} in the environment",
            hint=f"export {name}=... the URL of the database that the search was started with",
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions(RunOptions):
    """The options of `search`: it has minutes to search, or trials."""

    minutes: Annotated[float | None, typer.Option(min=0.01, help="Minutes to search, instead of --trials.")] = None

    def __post_init__(self) -> None:
        super(SearchOptions, self).__post_init__()
        if self.trials is not None and self.minutes is not None:
            raise ConfigError("--trials and --minutes are two limits", hint="give one of them")

    def budget(self, plan: "RunPlan | None" = None) -> "Budget":
        """How long and where; `finalists RUN` has them of a run that is searched further."""
        found = replace(super(SearchOptions, self).budget(plan), minutes=self.minutes, finalists=0)
        return replace(found, trials=None) if self.minutes else found


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions(RunOptions):
    """The options of `train`: it measures nothing."""

    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MOST_WORKERS,
            help="Processes that train together, through Ray: the same training as in one. Default: this one alone.",
        ),
    ] = None


Command = Callable[..., None]


def _place(name: str) -> int:
    """The number of an option's panel in the help."""
    return next((i for i, names in enumerate(PANELS.values()) if name in names), len(PANELS))


def _in_panel(option: Field[Any]) -> Any:
    """The annotation of an option, with its panel."""
    kind, info = get_args(option.type)
    panel = [*PANELS, None][_place(option.name)]
    return Annotated[kind, copy(info)] if panel is None else Annotated[kind, _with_panel(info, panel)]


def _with_panel(info: Any, panel: str) -> Any:
    info = copy(info)
    info.rich_help_panel = panel
    return info


def takes(options: type[RunOptions], without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command the fields of a dataclass as its options: typer reads them off the signature it gets here.

    The fields are annotated as parameters of a command are, which gets one of the class as `options`. Fields in
    `without` are no options of this command; they keep their defaults.
    """
    given = [field for field in fields(options) if field.name not in without]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def flat(**values: Any) -> None:
            mine = {field.name: values.pop(field.name) for field in given if field.name in values}
            command(**values, options=options(**mine))

        own = inspect.signature(command).parameters.values()
        parameters = [parameter for parameter in own if parameter.name != "options"]
        parameters += [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=_in_panel(f))
            for f in sorted(given, key=lambda f: _place(f.name))
        ]
        flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return flat

    return decorate
