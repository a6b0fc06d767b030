"""The command line: parses, calls one function, prints. Imports live in the handlers: who only looks needs no torch."""

import gc
import io
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.main import get_command

from nas.base import (
    STORAGE_VARIABLE,
    ConfigError,
    DiskError,
    NasError,
    Reporter,
    command_line,
    disk_error,
    hidden_words,
    hide_secrets,
    memory_error,
    program_name,
    secrets_in,
    temporary_folder,
    visible,
)
from nas.cli.alone import alone
from nas.cli.begin import first
from nas.cli.bundle import bundle
from nas.cli.latency import latency
from nas.cli.look import look
from nas.cli.metavars import readable
from nas.cli.options import (
    CONFIG_KEYS,
    DEFAULT_SPACE,
    MovedDataOption,
    RunArgument,
    RunOptions,
    SearchOptions,
    SpaceArgument,
    TrainOptions,
    example,
    takes,
)
from nas.cli.output import COMMON, RESUMABLE, begin, free_folder, next_step, print_result, reporter, show_front
from nas.cli.push import push

if TYPE_CHECKING:
    from nas.jobs import Session
    from nas.runs import RunPlan

INTERRUPTED = 130

app = typer.Typer(
    name="nas",
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="From images to the Pareto front of small, fast Vision Transformers, and the model files.\n\n"
    "[bold]run[/bold] without arguments is a whole job on scikit-learn's digits, a few minutes.",
    epilog="stdout is data, stderr is for people. Exit: 0 done, 1 the answer is bad, 2 misuse, 130 interrupted.",
)
app.add_typer(look)
app.add_typer(first)
app.add_typer(bundle)
app.add_typer(alone)
app.add_typer(latency, name="latency")
app.add_typer(push)
FORMER = {"--whole": "--baseline plain --baseline whole", "--no-baseline": "--baseline none"}
"""Options that are gone, and what says the same now."""
EVERYWHERE = ("-q", "--quiet", "-v", "--verbose", "--debug", "--version")


@app.callback(invoke_without_command=True)
def _options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr but errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what libraries log.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    COMMON.quiet, COMMON.debug = quiet, debug
    if verbose:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Plain(logging.BASIC_FORMAT))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
    if version:
        import nas

        print(nas.__version__)  # noqa: T201
        raise typer.Exit


@app.command(epilog=example("run cifar_small --data folder:photos --trials 100"))
@takes(RunOptions)
def run(space: SpaceArgument = DEFAULT_SPACE, *, options: RunOptions) -> None:
    """Everything: data, supernet, search, front.

    Without arguments: scikit-learn's digits on the space of that name, a few minutes on two cores.
    """
    for_space, config = options.resolve()
    if options.supernet_trials > 1:
        from nas.runs import check_supernet_trials

        check_supernet_trials(config, space, for_space, options.workers)
    begin(has_run=False)
    from nas.jobs import check_budget, several

    if not options.dry_run:
        check_budget(options.budget())
    plan = _plan(space, options) if options.minutes else None
    if options.dry_run:
        _forecast(options, lambda scratch: _start(space, options, scratch, plan))
        return
    session = _with_callbacks(options, lambda: _start(space, options, plan=plan))
    budget = options.budget(session.run.manifest.plan)
    show_front(session.run.path, several.run(session, budget), options.format_)
    next_step(command_line("export", session.run.path, "--pick", "knee", "--to", free_folder("my_vit")))


@app.command(epilog=example("train digits --epochs 20 --run results/mine"))
@takes(TrainOptions, without=("trials", "minutes", "finalists", "storage", "supernet_trials"))
def train(space: SpaceArgument, *, options: TrainOptions) -> None:
    """Train the supernet alone; `search RUN` goes on from there. Prints nothing but a forecast."""
    if options.dry_run:
        _forecast(options, lambda scratch: _start(space, options, scratch), searches=False)
        return
    options.resolve()  # cheap, and before torch is imported
    begin(has_run=False)
    from nas.jobs import check_budget, stages

    check_budget(replace(options.budget(), workers=0))  # it measures nothing
    session = _with_callbacks(options, lambda: _start(space, options))
    with session.run.lock():
        stages.train(session, options.workers or 0, options.ray_address)
    next_step(command_line("search", session.run.path))


@app.command(epilog=example("search results/digits-1 --trials 300"))
@takes(SearchOptions, without=(*CONFIG_KEYS, "run", "finalists", "supernet_trials", "settings", "config"))
def search(
    run: RunArgument,
    *,
    data: MovedDataOption = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            max=1000,
            help="Searches of the supernet, with other seeds, what was measured taken over; the front is of all of "
            "them, and says how many found each point.",
        ),
    ] = 1,
    options: SearchOptions,
) -> None:
    """Search a run whose supernet is trained, go on with it, or extend it."""

    def trained() -> "Session":
        from nas.jobs import reopen
        from nas.training import load_trained

        session = reopen(run, reporter(), data)
        if session.run.manifest.supernet_trials is None:
            load_trained(session.run, session.space, session.device)
        return session

    if options.dry_run:
        _forecast(options, lambda _: trained())
        return
    begin(has_run=True)
    from nas.jobs import check_budget, repeat, several

    budget = options.budget()
    check_budget(budget)
    session = _with_callbacks(options, trained)
    extends = options.trials is not None or options.minutes is not None
    if seeds == 1 or extends or session.run.manifest.stage != "finished":
        front = several.run(session, budget)
    if seeds > 1:
        front = repeat(session, budget, seeds)
    show_front(session.run.path, front, options.format_)


def _plan(space: Path, options: RunOptions) -> "RunPlan":
    """What the minutes are for, as the run has it where there is one, else by rehearsal."""
    started = time.perf_counter()
    from nas.jobs import plan_job

    with temporary_folder("plan") as scratch:
        session = _start(space, options, scratch / "new", quiet=True)
        if (kept := session.run.manifest.plan) is not None:
            return kept
        return plan_job(
            replace(session, reporter=reporter()),
            options.budget(),
            options.minutes or 0.0,
            scratch=scratch / "rehearsal",
            start_s=time.perf_counter() - started,
            trials=options.trials,
            is_new=session.run.path.is_relative_to(scratch),
        )


def _start(
    space: Path, options: RunOptions, scratch: Path | None = None, plan: "RunPlan | None" = None, *, quiet: bool = False
) -> "Session":
    for_space, config = options.resolve()
    from nas.jobs import start  # after the cheap checks: it takes seconds to import

    say = Reporter(quiet=True) if quiet else reporter()
    session = start(space, for_space, config, options.run, say, scratch=scratch, plan=plan)
    if scratch is None:
        COMMON.interrupted = RESUMABLE
    return session


def _with_callbacks(options: RunOptions, open_session: Callable[[], "Session"]) -> "Session":
    """A session with all that listens to its run."""
    from nas.jobs import TensorBoard

    callbacks = (TensorBoard(),) if options.tensorboard else ()  # first: it may be missing
    session = replace(open_session(), callbacks=callbacks)
    gc.freeze()  # what was imported stays: looking through it for garbage takes half a second each time
    return session


def _forecast(options: RunOptions, open_session: Callable[[Path], "Session"], *, searches: bool = True) -> None:
    """Print what a command will need; `open_session` has to make a new run in the folder that it is given."""
    started = time.perf_counter()
    begin(has_run=False)
    from nas.jobs import check_budget_dry, forecast
    from nas.report import forecast_table

    if searches:
        check_budget_dry(options.budget())
    with temporary_folder("dry-run") as scratch:
        session = open_session(scratch / "new")
        budget = options.budget(session.run.manifest.plan) if searches else None
        start_s, workers = time.perf_counter() - started, options.workers or 0
        values = forecast(session, budget, scratch=scratch / "rehearsal", start_s=start_s, train_workers=workers)
    print_result(options.format_, values, forecast_table, [values])


def main(arguments: Sequence[str] | None = None, *, alone: str = "--help") -> int:
    """Run a command; returns the exit code: 0 done, 1 the answer is bad, 2 misuse, 130 interrupted.

    `alone` is run where no command is given.
    """
    # Before torch is imported: threads that spin while they wait starve each other on a busy machine (10 against
    # 71 images/s in one measurement, results/LOG.md). It changes speed, never results.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows few letters shows the others as ?
            stream.reconfigure(errors="replace" if stream.encoding.lower() != "utf-8" else "backslashreplace")
    if arguments is None:
        _hide_storage()
        sys.excepthook = _say_bug
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Plain())
    COMMON.interrupted = ""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    everywhere = [word for word in arguments if word in EVERYWHERE]  # click: only before a command
    rest = [word for word in arguments if word not in EVERYWHERE]
    if not rest and "--version" not in everywhere:
        rest = [alone]
    try:
        program = readable(get_command(app))
        result = program(args=[*everywhere, *rest], prog_name=program_name(), standalone_mode=False)
        code = result if isinstance(result, int) else 0
        sys.stdout.flush()  # here, where a full disk is told
    except NasError as error:
        return _told(error)
    except BrokenPipeError:  # who reads, such as `head`, has enough
        _forget_stdout()
        return 0
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        if found := disk_error(error) or memory_error(error):
            return _told(found)
        if isinstance(error, OSError) and error.filename is not None:  # such as a name of 300 characters
            return _told(ConfigError(f"{error.filename}: {error.strerror}", hint="give another path"))
        if not (hasattr(error, "show") and hasattr(error, "exit_code")):
            raise
        error.message = visible(hide_secrets(str(getattr(error, "message", ""))))  # type: ignore[attr-defined]
        error.show()  # click's words on a wrong flag or argument, with the usage and a suggestion
        _say_key(str(getattr(error, "option_name", "")))
        return int(error.exit_code)
    if code == INTERRUPTED:  # typer turns Ctrl-C within a command into this code
        again = f"; {COMMON.interrupted} {command_line(*hidden_words(arguments))}" if COMMON.interrupted else ""
        _say(f"\ninterrupted{again}")
    return code


def _say_key(option: str) -> None:
    """Where an option that is not there is a key, or has another name now, say so."""
    from nas.settings import keys_for

    if option in FORMER:
        _say(f"hint: {FORMER[option]}")
    if option.startswith("--") and (keys := keys_for(option.lstrip("-").replace("-", "_"))):
        _say(f"hint: {' or '.join(f'--set {key}=VALUE' for key in keys)}")


def _told(error: NasError) -> int:
    """Tell people what was wrong; returns the exit code."""
    if COMMON.debug:
        raise error
    if isinstance(error, DiskError):
        _forget_stdout()
    with suppress(OSError):  # a file on the full disk, for example
        _say(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""))
    return error.exit_code


def _forget_stdout() -> None:
    """Let what standard output cannot take go, or Python complains about it when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    print(visible(hide_secrets(text)), file=sys.stderr)  # noqa: T201


def _say_bug(*raised: Any) -> None:
    _say("".join(traceback.format_exception(*raised)).rstrip())


class _Plain(logging.Formatter):
    """What libraries say of a user's words, such as timm of a path, without escapes and secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The message as a line."""
        return visible(hide_secrets(super().format(record)))


def _hide_storage() -> None:
    """Where the command line holds a database's password, start it again with the URL in the environment.

    Everybody on a machine can read command lines, and Ray sends them to its cluster.
    """
    words = list(sys.orig_argv)
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag != "--storage" or i + 2 - bool(equals) > len(words):
            continue
        place = i if equals else i + 1
        value = value if equals else words[place]
        if "@" in value or secrets_in(value):
            words[place] = ("--storage=" if equals else "") + f"${STORAGE_VARIABLE}"
            os.execve(sys.executable, [sys.executable, *words[1:]], {**os.environ, STORAGE_VARIABLE: value})
