"""The command line: parses, calls one function, prints. Standard output is data, standard error for people.

Commands that only look import no torch; imports live in the handlers.
"""

import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.base import ConfigError, NasError
from nas.cli.alone import retraining, trusting
from nas.cli.context import COMMON, reporter
from nas.cli.latency import timing
from nas.cli.look import looking
from nas.cli.options import (
    DEFAULT_SPACE,
    DEFAULT_TRIALS,
    AddressOption,
    Budgeting,
    ConfigOption,
    DataOption,
    DeviceOption,
    DryRunOption,
    EpochsOption,
    Format,
    FormatOption,
    InitOption,
    MinutesOption,
    PrecisionOption,
    Recipe,
    RunArgument,
    RunOption,
    SamplerOption,
    SeedOption,
    SetOption,
    SkipOption,
    SpaceArgument,
    StorageOption,
    SupernetTrialsOption,
    TargetOption,
    TeacherOption,
    TensorBoardOption,
    TrainWorkersOption,
    TrialsOption,
    WorkersOption,
    recipe_of,
)
from nas.cli.output import flat_csv, print_result, show_front

INTERRUPTED = 130

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
app.add_typer(looking)
app.add_typer(trusting)
app.add_typer(retraining)
app.add_typer(timing, name="latency")
EVERYWHERE = ("-q", "--quiet", "-v", "--verbose", "--debug", "--version")


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
        _run(DEFAULT_SPACE, None, Budgeting(), Recipe(), None, is_dry=False)


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
    supernet_trials: SupernetTrialsOption = 1,
    sampler: SamplerOption = None,
    init: InitOption = None,
    teacher: TeacherOption = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    target: TargetOption = None,
    settings: SetOption = None,
    config: ConfigOption = None,
    skip_bad_images: SkipOption = False,
    tensorboard: TensorBoardOption = False,
    dry_run: DryRunOption = False,
    format_: FormatOption = None,
) -> None:
    """Everything: data, supernet, search, front.

    Without arguments: the bundled digits on search_spaces/digits.yaml, a few minutes on two cores.
    """
    recipe = recipe_of(
        data, epochs, sampler, init, teacher, seed, device, precision, target, settings, config, skip_bad_images
    )  # fmt: skip
    budgeting = Budgeting(
        trials=trials,
        minutes=minutes,
        workers=workers,
        ray_address=ray_address,
        storage=storage,
        supernet_trials=supernet_trials,
    )
    _run(space, run, budgeting, recipe, format_, is_dry=dry_run, tensorboard=tensorboard)


@app.command()
def train(
    space: SpaceArgument,
    data: DataOption = None,
    run: RunOption = None,
    epochs: EpochsOption = None,
    workers: TrainWorkersOption = None,
    ray_address: AddressOption = None,
    sampler: SamplerOption = None,
    init: InitOption = None,
    teacher: TeacherOption = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    target: TargetOption = None,
    settings: SetOption = None,
    config: ConfigOption = None,
    skip_bad_images: SkipOption = False,
    tensorboard: TensorBoardOption = False,
    dry_run: DryRunOption = False,
    format_: FormatOption = None,
) -> None:
    """Train the supernet alone; `search RUN` goes on from there. Prints nothing but a forecast."""
    recipe = recipe_of(
        data, epochs, sampler, init, teacher, seed, device, precision, target, settings, config, skip_bad_images
    )  # fmt: skip
    if dry_run:
        _forecast(lambda scratch: _start(space, run, recipe, scratch), None, format_, workers or 0)
        return
    _resolve(recipe)  # cheap, and before torch is imported
    from nas.jobs import Budget, check_budget, stages

    check_budget(Budget(trials=None, ray_address=ray_address))
    callbacks = _callbacks(tensorboard)
    session = replace(_start(space, run, recipe), callbacks=callbacks)
    with session.run.lock():
        stages.train(session, workers or 0, ray_address)
    _next_step(f"search {shlex.quote(str(session.run.path))}")


@app.command()
def search(
    run: RunArgument,
    trials: TrialsOption = None,
    minutes: MinutesOption = None,
    workers: WorkersOption = None,
    ray_address: AddressOption = None,
    storage: StorageOption = None,
    tensorboard: TensorBoardOption = False,
    dry_run: DryRunOption = False,
    format_: FormatOption = None,
) -> None:
    """Search a run whose supernet is trained, go on with it, or extend it."""

    def reopened(_: Path | None = None) -> Any:
        from nas.jobs import reopen, trained_supernet

        session = reopen(run, reporter())
        if "supernet_trials" not in session.run.manifest:
            trained_supernet(session)
        return session

    budgeting = Budgeting(
        trials=trials, minutes=minutes, workers=workers, ray_address=ray_address, storage=storage
    )
    if dry_run:
        _forecast(reopened, budgeting, format_)
        return
    from nas.jobs import several

    budget, callbacks = _budget(budgeting), _callbacks(tensorboard)
    session = replace(reopened(), callbacks=callbacks)
    show_front(session.run.path, several.run(session, budget), format_)


@app.command()
def export(
    run: RunArgument,
    pick: Annotated[str, typer.Option(help="knee | top1 | fastest | cheapest | digest | architecture file.")],
    to: Annotated[Path, typer.Option(help="Folder of the model bundle.")],
    formats: Annotated[
        str, typer.Option(help="Comma-separated: timm, pt2, onnx, openvino.")
    ] = "timm,pt2,onnx",
    format_: FormatOption = None,
) -> None:
    """Write an architecture as a model bundle, reload it, and fail if anything differs from the table."""
    from nas.jobs import export_pick
    from nas.report import export_table

    bundle = export_pick(run, pick, to, tuple(formats.split(",")), reporter())
    values = bundle.to_dict()
    print_result(format_, values, lambda: export_table(values), lambda: flat_csv(values["files"]))


def _resolve(recipe: Recipe) -> tuple[tuple[str, ...], Any]:
    from nas.settings import resolve_config, split_settings

    for_space, for_config = split_settings(recipe.settings)
    return for_space, resolve_config(recipe.config, for_config, recipe.flags)


def _start(space: Path, path: Path | None, recipe: Recipe, scratch: Path | None = None) -> Any:
    for_space, config = _resolve(recipe)
    from nas.jobs import start  # after the cheap checks: it takes seconds to import

    return start(space, for_space, config, path, reporter(), scratch=scratch)


def _callbacks(tensorboard: bool) -> Any:
    from nas.jobs import TensorBoard

    return (TensorBoard(),) if tensorboard else ()


def _check_limits(options: Budgeting) -> None:
    if options.trials is not None and options.minutes is not None:
        raise ConfigError("--trials and --minutes are two limits", hint="give one of them")


def _budget(options: Budgeting) -> Any:
    from nas.jobs import Budget

    _check_limits(options)
    trials = options.trials if options.trials or options.minutes else DEFAULT_TRIALS
    workers = options.workers if options.workers is not None else len(os.sched_getaffinity(0))
    return Budget(
        trials=trials,
        minutes=options.minutes,
        workers=workers,
        train_workers=options.workers or 0,
        ray_address=options.ray_address,
        storage=options.storage,
        supernet_trials=options.supernet_trials,
    )


def _run(
    space: Path,
    path: Path | None,
    budgeting: Budgeting,
    recipe: Recipe,
    format_: Format | None,
    *,
    is_dry: bool,
    tensorboard: bool = False,
) -> None:
    _check_limits(budgeting)
    for_space, config = _resolve(recipe)  # cheap, and before torch is imported
    if budgeting.supernet_trials > 1:
        from nas.runs import check_supernet_trials

        check_supernet_trials(config, space, for_space, budgeting.workers)
    if is_dry:
        _forecast(lambda scratch: _start(space, path, recipe, scratch), budgeting, format_)
        return
    from nas.jobs import check_budget, several

    budget = _budget(budgeting)
    check_budget(budget)
    callbacks = _callbacks(tensorboard)
    session = replace(_start(space, path, recipe), callbacks=callbacks)
    found = several.run(session, budget)
    show_front(session.run.path, found, format_)
    if not COMMON.quiet:
        _next_step(f"export {shlex.quote(str(session.run.path))} --pick knee --to my_vit")


def _forecast(
    open_session: Callable[[Path], Any],
    budgeting: Budgeting | None,
    format_: Format | None,
    train_workers: int = 0,
) -> None:
    """Print what a command will need.

    Args:
        open_session: Its session; a new run has to be made in the folder that it is given.
        budgeting: Of its search; None: it only trains.
        format_: Of the output.
        train_workers: Processes that train together.
    """
    started = time.perf_counter()
    from tempfile import TemporaryDirectory

    from nas.jobs import check_budget_dry, forecast
    from nas.report import forecast_table

    budget = _budget(budgeting) if budgeting is not None else None
    if budget is not None:
        check_budget_dry(budget)
        train_workers = budget.train_workers
    with TemporaryDirectory(prefix="nas-dry-run-") as scratch:
        session = open_session(Path(scratch) / "new")
        start_s = time.perf_counter() - started
        rehearsal = Path(scratch) / "rehearsal"
        values = forecast(session, budget, scratch=rehearsal, start_s=start_s, train_workers=train_workers)
    print_result(format_, values, lambda: forecast_table(values), lambda: flat_csv([values]))


def _next_step(command: str) -> None:
    reporter().line("next", f"python search.py {command}")


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
        code = result if isinstance(result, int) else 0
    except NasError as error:
        if COMMON.debug:
            raise
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        if _is_usage_error(error):
            return error.exit_code  # type: ignore[attr-defined, no-any-return]
        raise
    if code == INTERRUPTED:  # typer turns Ctrl-C within a command into this code
        command = shlex.join(["python", "search.py", *arguments])
        print(f"\ninterrupted; what is finished is kept. Resume: {command}", file=sys.stderr)  # noqa: T201
    return code


def _is_usage_error(error: Exception) -> bool:
    """A wrong flag or argument: show it as click does, with its usage and suggestion."""
    show = getattr(error, "show", None)
    if show is None or not hasattr(error, "exit_code"):
        return False
    show()
    return True
