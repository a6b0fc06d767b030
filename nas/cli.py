"""The command line: parses, calls one function, prints. Standard output is data, standard error for people.

Commands that only look import no torch; imports live in the handlers.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.errors import ConfigError, NasError

DEFAULT_SPACE = Path("search_spaces/digits.yaml")
DEFAULT_TRIALS = 200

app = typer.Typer(
    name="nas",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="From images to the Pareto front of small, fast Vision Transformers, and the model files.\n\n"
    "Without a command: [bold]run[/bold] on scikit-learn's digits.",
    epilog="stdout is data, stderr is for people. "
    "Exit: 0 done, 1 the answer is bad, 2 misuse, 130 interrupted.",
)


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(slots=True)
class _Common:
    quiet: bool = False
    debug: bool = False


COMMON = _Common()
EVERYWHERE = ("-q", "--quiet", "-v", "--verbose", "--debug", "--version")

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
    str | None, typer.Option(help="timm:NAME | local-dir:DIR: weights to start the supernet from.")
]
DeviceOption = Annotated[str | None, typer.Option(help="auto | cpu | cuda.")]
PrecisionOption = Annotated[
    str | None, typer.Option(help="auto | fp32 | bf16; auto is bf16 where the hardware has it.")
]
SamplerOption = Annotated[str | None, typer.Option(help="nsga2 | tpe | random.")]
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
        help="Ray workers, one thread each; 0: in this process, without Ray. Default: one per core.",
    ),
]
AddressOption = Annotated[str | None, typer.Option(help="Ray cluster to run on; default: this machine.")]
StorageOption = Annotated[
    str | None, typer.Option(help="Database URL of the Optuna study; default: a journal in the run.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="section.key=value of the configuration or the space; repeatable."),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file of the configuration.")]
SkipOption = Annotated[
    bool, typer.Option("--skip-bad-images", help="Leave unreadable images out instead of stopping.")
]


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr but errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what libraries log.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    COMMON.quiet, COMMON.debug = quiet, debug
    if verbose:
        import logging

        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    if version:
        import nas

        print(nas.__version__)  # noqa: T201
        raise typer.Exit
    if context.invoked_subcommand is None:
        _run(DEFAULT_SPACE, None, Budgeting(), Recipe(), None)


@dataclass(slots=True, kw_only=True)
class Budgeting:
    """The options that decide how long and where."""

    trials: int | None = None
    minutes: float | None = None
    workers: int | None = None
    ray_address: str | None = None
    storage: str | None = None


@dataclass(slots=True, kw_only=True)
class Recipe:
    """The options that decide the results."""

    config: Path | None = None
    settings: Sequence[str] = ()
    flags: dict[str, Any] | None = None


@app.command()
def run(
    space: SpaceArgument = DEFAULT_SPACE,
    data: DataOption = None,
    run: RunOption = None,
    epochs: EpochsOption = None,
    trials: TrialsOption = None,
    minutes: MinutesOption = None,
    workers: WorkersOption = None,
    ray_address: AddressOption = None,
    storage: StorageOption = None,
    sampler: SamplerOption = None,
    init: InitOption = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    settings: SetOption = None,
    config: ConfigOption = None,
    skip_bad_images: SkipOption = False,
    format_: FormatOption = None,
) -> None:
    """Everything: data, supernet, search, front.

    Without arguments: the bundled digits on search_spaces/digits.yaml, a few minutes on two cores.
    """
    recipe = _recipe(data, epochs, sampler, init, seed, device, precision, settings, config, skip_bad_images)
    budgeting = Budgeting(
        trials=trials, minutes=minutes, workers=workers, ray_address=ray_address, storage=storage
    )
    _run(space, run, budgeting, recipe, format_)


@app.command()
def train(
    space: SpaceArgument,
    data: DataOption = None,
    run: RunOption = None,
    epochs: EpochsOption = None,
    sampler: SamplerOption = None,
    init: InitOption = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    settings: SetOption = None,
    config: ConfigOption = None,
    skip_bad_images: SkipOption = False,
) -> None:
    """Train the supernet alone; `search RUN` goes on from there."""
    from nas import pipeline

    recipe = _recipe(data, epochs, sampler, init, seed, device, precision, settings, config, skip_bad_images)
    session = _start(space, run, recipe)
    with session.run.lock():
        pipeline.train(session)
    _next_step(f"search {shlex.quote(str(session.run.path))}")


@app.command()
def search(
    run: RunArgument,
    trials: TrialsOption = None,
    minutes: MinutesOption = None,
    workers: WorkersOption = None,
    ray_address: AddressOption = None,
    storage: StorageOption = None,
    format_: FormatOption = None,
) -> None:
    """Search a run whose supernet is trained, go on with it, or extend it."""
    from nas import pipeline
    from nas.session import reopen

    session = reopen(run, _reporter())
    pipeline.trained_supernet(session)
    budget = _budget(
        Budgeting(trials=trials, minutes=minutes, workers=workers, ray_address=ray_address, storage=storage)
    )
    _show_front(session.run.path, pipeline.run(session, budget), format_)


@app.command()
def check(
    space: SpaceArgument = DEFAULT_SPACE,
    settings: SetOption = None,
    format_: FormatOption = None,
) -> None:
    """Validate a search space; print its size and the range of its costs."""
    from nas.check import space_summary, space_table
    from nas.space_file import read_space

    found = read_space(space, tuple(settings or ()))
    summary = space_summary(found)
    _print(format_, summary, lambda: space_table(found), lambda: _flat_csv([summary]))


@app.command()
def status(run: RunArgument, format_: FormatOption = None) -> None:
    """Trials by state, hypervolume so far, throughput, time left."""
    from nas.report import status_dict, status_table
    from nas.run_directory import RunDirectory

    values = status_dict(RunDirectory.open(run))
    _print(format_, values, lambda: status_table(values), lambda: _flat_csv([values]))


@app.command()
def front(
    run: RunArgument,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Only architectures up to this latency, ms per batch.")
    ] = None,
    max_macs: Annotated[
        float | None, typer.Option(help="Only up to these MACs per image, such as 30e6.")
    ] = None,
    max_params: Annotated[float | None, typer.Option(help="Only up to this number of parameters.")] = None,
    min_top1: Annotated[float | None, typer.Option(help="Only from this top-1 on, percent.")] = None,
    sort: Annotated[str | None, typer.Option(help="top1 | macs | params | latency_ms.")] = None,
    format_: FormatOption = None,
) -> None:
    """The Pareto front."""
    from nas.pareto import ParetoFront

    whole = found = ParetoFront.from_run(run)
    for name, maximum in (("latency_ms", max_latency_ms), ("macs", max_macs), ("params", max_params)):
        if maximum is not None:
            found = found.within(name, maximum=maximum)
    if min_top1 is not None:
        found = found.within("top1", minimum=min_top1)
    _show_front(run, found.sorted_by(sort) if sort else found, format_, whole=whole)


@app.command()
def show(
    run: RunArgument,
    pick: Annotated[
        str, typer.Argument(help="knee | top1 | fastest | cheapest | digest | architecture file.")
    ],
    format_: FormatOption = None,
) -> None:
    """One architecture, layer by layer: tokens, operators, MACs, share of latency."""
    from nas.pareto import ParetoFront
    from nas.report import show_rows, show_table
    from nas.run_directory import RunDirectory
    from nas.space_file import space_of_run

    backbone = space_of_run(RunDirectory.open(run)).backbone
    point = ParetoFront.from_run(run).pick(pick)
    rows = show_rows(point, backbone)
    values = {
        "schema_version": 1,
        "digest": point.digest,
        "layers": rows,
        "architecture": point.architecture.to_dict(),
    }
    _print(format_, values, lambda: show_table(point, backbone), lambda: _flat_csv(rows))


@app.command()
def export(
    run: RunArgument,
    pick: Annotated[str, typer.Option(help="knee | top1 | fastest | cheapest | digest | architecture file.")],
    to: Annotated[Path, typer.Option(help="Folder of the model bundle.")],
    formats: Annotated[str, typer.Option(help="Comma-separated: timm, pt2, onnx.")] = "timm,pt2,onnx",
    format_: FormatOption = None,
) -> None:
    """Write an architecture as a model bundle, reload it, and fail if anything differs from the table."""
    from nas import pipeline
    from nas.report import export_table

    bundle = pipeline.export(run, pick, to, tuple(formats.split(",")), _reporter())
    values = bundle.to_dict()
    _print(format_, values, lambda: export_table(values), lambda: _flat_csv(values["files"]))


@app.command()
def doctor(format_: FormatOption = None) -> None:
    """Versions, devices, self-tests, and what is missing."""
    from nas.doctor import diagnose, diagnosis_table

    findings = diagnose()
    _print(format_, findings, lambda: diagnosis_table(findings), lambda: _flat_csv(findings["checks"]))
    if not findings["healthy"]:
        raise typer.Exit(1)


def _recipe(
    data: str | None,
    epochs: int | None,
    sampler: str | None,
    init: str | None,
    seed: int | None,
    device: str | None,
    precision: str | None,
    settings: Sequence[str] | None,
    config: Path | None,
    skip_bad_images: bool,
) -> Recipe:
    flags = {
        "data.spec": data,
        "data.skip_bad_images": skip_bad_images or None,
        "train.epochs": epochs,
        "search.sampler": sampler,
        "init": init,
        "seed": seed,
        "device": device,
        "precision": precision,
    }
    return Recipe(config=config, settings=settings or (), flags=flags)


def _start(space: Path, path: Path | None, recipe: Recipe) -> Any:
    from nas.config import resolve_config, split_settings

    for_space, for_config = split_settings(recipe.settings)
    config = resolve_config(recipe.config, for_config, recipe.flags)
    from nas.session import start  # after the cheap checks: it takes seconds to import

    return start(space, for_space, config, path, _reporter())


def _check_limits(options: Budgeting) -> None:
    if options.trials is not None and options.minutes is not None:
        raise ConfigError("--trials and --minutes are two limits", hint="give one of them")


def _budget(options: Budgeting) -> Any:
    from nas.pipeline import Budget

    _check_limits(options)
    trials = options.trials if options.trials or options.minutes else DEFAULT_TRIALS
    workers = options.workers if options.workers is not None else len(os.sched_getaffinity(0))
    return Budget(
        trials=trials,
        minutes=options.minutes,
        workers=workers,
        ray_address=options.ray_address,
        storage=options.storage,
    )


def _run(
    space: Path, path: Path | None, budgeting: Budgeting, recipe: Recipe, format_: Format | None
) -> None:
    _check_limits(budgeting)
    session = _start(space, path, recipe)
    from nas import pipeline

    found = pipeline.run(session, _budget(budgeting))
    _show_front(session.run.path, found, format_)
    if not COMMON.quiet:
        _next_step(f"export {shlex.quote(str(session.run.path))} --pick knee --to my_vit")


def _show_front(path: Path, found: Any, format_: Format | None, *, whole: Any = None) -> None:
    from nas.report import front_csv, front_table
    from nas.run_directory import RunDirectory

    name = RunDirectory.open(path).name
    _print(format_, found.to_dict(name), lambda: front_table(found, whole=whole), lambda: front_csv(found))


def _next_step(command: str) -> None:
    _reporter().line("next", f"python search.py {command}")


def _reporter() -> Any:
    from nas.progress import Reporter

    return Reporter(quiet=COMMON.quiet)


def _print(
    format_: Format | None, values: Any, table: Callable[[], Any], csv_text: Callable[[], str]
) -> None:
    chosen = format_ or (Format.TABLE if sys.stdout.isatty() else Format.JSON)
    if chosen is Format.JSON:
        print(json.dumps(values, indent=2, allow_nan=False))  # noqa: T201
    elif chosen is Format.CSV:
        print(csv_text(), end="")  # noqa: T201
    else:
        from rich.console import Console

        width = None if sys.stdout.isatty() else 160
        Console(width=width).print(table())


def _flat_csv(rows: Sequence[dict[str, Any]]) -> str:
    import csv
    import io

    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()})
    return text.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 the answer is bad, 2 misuse, 130 interrupted."""
    # Before torch is imported: threads that spin while they wait starve each other on a busy machine (10 against
    # 71 images/s in one measurement, results/LOG.md). It changes speed, never results.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    everywhere = [word for word in arguments if word in EVERYWHERE]  # click: only before a command
    rest = [word for word in arguments if word not in EVERYWHERE]
    try:
        result = app(args=[*everywhere, *rest], prog_name="search.py", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except NasError as error:
        if COMMON.debug:
            raise
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except typer.Abort:
        pass
    except KeyboardInterrupt:
        pass
    except Exception as error:
        if _is_usage_error(error):
            return error.exit_code  # type: ignore[attr-defined, no-any-return]
        raise
    command = shlex.join(["python", "search.py", *arguments])
    print(f"\ninterrupted; what is finished is kept. Resume: {command}", file=sys.stderr)  # noqa: T201
    return 130


def _is_usage_error(error: Exception) -> bool:
    """A wrong flag or argument: show it as click does, with its usage and suggestion."""
    show = getattr(error, "show", None)
    if show is None or not hasattr(error, "exit_code"):
        return False
    show()
    return True
