"""`latency`: how fast models are on this machine, or on another one, and profiles that predict it."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nas.base import command_line
from nas.cli.options import FormatOption, RunArgument, SeedOption, SetOption, SpaceArgument, example
from nas.cli.output import print_result, reporter

MEASURE = "measure"


class _MeasureByDefault(TyperGroup):
    """`latency RUN` is `latency measure RUN`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the command where none is named."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [MEASURE, *args]
        return super().parse_args(ctx, args)


latency = typer.Typer(
    cls=_MeasureByDefault,
    no_args_is_help=True,
    help="How fast models are: `latency RUN`, or a folder written by `export`, measures it on this machine; "
    "profile, pack and read are for searches and for other devices.",
)

RoundsOption = Annotated[
    int,
    typer.Option(
        min=3,
        max=100_000,
        help="In which every model is timed once; up to three times as many for what is not known within 2 %.",
    ),
]
TARGET_HELP = "runtime[:batch=N,threads=N,precision=fp32|bf16|int8], such as onnxruntime-cpu:batch=1"


@latency.command(MEASURE, epilog=example("latency results/digits-1 --target onnxruntime-cpu:batch=1"))
def measure(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|BUNDLE", help="A run's folder, or a model written by `export`.")
    ],
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help=f"{TARGET_HELP}; repeatable. Default: that of the run, or torch-cpu."),
    ] = None,
    rounds: RoundsOption = 30,
    format_: FormatOption = None,
) -> None:
    """Latency of a front, or of one model, on this machine: median, interval, ties, and whether the order repeats."""
    from nas.settings import parse_target

    targets = [parse_target(text) for text in target or ()]
    from nas.latency import measure_source
    from nas.report import measured_rows, measured_tables

    values = measure_source(source, targets, rounds, reporter())
    print_result(format_, values, measured_tables, measured_rows(values))


@latency.command(epilog=example("latency profile cifar_small --target torch-cpu-packed"))
def profile(
    space: SpaceArgument,
    target: Annotated[str, typer.Option("--target", help=f"{TARGET_HELP}.")] = "torch-cpu",
    architectures: Annotated[int, typer.Option(min=12, max=1_000_000, help="To measure.")] = 80,
    to: Annotated[
        Path | None, typer.Option(help="JSON file; default: latency-<space>-<target>.json in this folder.")
    ] = None,
    rounds: RoundsOption = 9,
    seed: SeedOption = None,
    settings: SetOption = None,
    format_: FormatOption = None,
) -> None:
    """Measure architectures of a space and fit a predictor: `run --target profile:FILE` searches with it."""
    from nas.settings import parse_target

    chosen = parse_target(target)
    from nas.space import read_space

    found = read_space(space, tuple(settings or ()))
    file = to or Path(f"latency-{found.name}-{re.sub('[^a-z0-9]+', '-', str(chosen))}.json")
    from nas.latency import profile_space
    from nas.report import profile_table

    values = profile_space(found, chosen, architectures, rounds, seed or 0, file, reporter())
    print_result(format_, values, profile_table, values["predictors"])
    if not values["usable"]:
        raise typer.Exit(1)
    reporter().line("next", command_line("run", space, "--target", f"profile:{file}"))


@latency.command(epilog=example("latency pack results/digits-1 --to packed"))
def pack(
    run: RunArgument,
    to: Annotated[Path, typer.Option(help="New folder: ONNX models and measure.py, to be copied to the device.")],
    batch: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Images per forward pass; default: that of the run.")
    ] = None,
    format_: FormatOption = None,
) -> None:
    """Write the front for a device that has only Python, numpy and onnxruntime; `measure.py` there times it."""
    from nas.latency import pack_run

    values = pack_run(run, to, batch, reporter())
    print_result(format_, values, lambda _: f"{to}: {len(values['models'])} models", values["models"])
    reporter().line("next", f"copy {to} to the device, run `python measure.py` there, copy results.json back")


@latency.command(epilog=example("latency read packed results/digits-1"))
def read(
    packed: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of `latency pack`, with results.json.")],
    run: RunArgument,
    format_: FormatOption = None,
) -> None:
    """Show what `measure.py` measured on the other device beside the front."""
    from nas.latency import read_results
    from nas.report import results_table

    values = read_results(packed, run)
    for note in values["notes"]:
        reporter().line("warning", note)
    print_result(format_, values, results_table, values["points"])
