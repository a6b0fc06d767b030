"""`retrain`, `trust` and `finalists`: architectures trained alone, and tested."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nas.base import program_name, rename_program
from nas.cli.options import (
    AloneEpochsOption,
    AloneSeedsOption,
    FormatOption,
    MovedDataOption,
    PickOption,
    RunArgument,
    TeacherOption,
    WorkersOption,
    example,
    worker_count,
)
from nas.cli.output import begin, free_folder, next_step, next_validate, print_result, reporter

alone = typer.Typer()


@alone.command(epilog=example("trust results/digits-1 --architectures 12 --seeds 1"))
def trust(
    run: RunArgument,
    architectures: Annotated[
        int, typer.Option(max=100_000, help="Architectures to train alone, at least 4; more go on with these.")
    ] = 24,
    seeds: AloneSeedsOption = 2,
    epochs: AloneEpochsOption = None,
    workers: WorkersOption = None,
    data: MovedDataOption = None,
    format_: FormatOption = None,
) -> None:
    """Does the supernet rank right? Rank correlation of inherited and stand-alone accuracy, with intervals.

    Trains architectures alone, which takes long; every finished training is kept, and the same command goes on.
    """
    from nas.report import trust_table
    from nas.runs import check_counts

    check_counts(architectures, seeds)
    begin(has_run=True)
    from nas.jobs import trust

    found = trust(
        run,
        reporter(),
        architectures=architectures,
        seeds=seeds,
        epochs=epochs,
        workers=worker_count(workers),
        data=data,
    )
    print_result(format_, found, trust_table, found["architectures"])


@alone.command(epilog=example("finalists results/digits-1 --count 6"))
def finalists(
    run: RunArgument,
    count: Annotated[int, typer.Option(max=10_000, help="Networks to train on; two for each level of cost.")] = 16,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Of the last trainings; default: all cost half of the supernet's."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(max=10_000, help="Last trainings of each; the median one stands for the network.")
    ] = 1,
    workers: WorkersOption = None,
    data: MovedDataOption = None,
    format_: FormatOption = None,
) -> None:
    """The last choice by trainings: front members, plain rivals and close ones are trained on; the best are the front.

    Each starts from its slice of the supernet. Every finished training is kept, and the same command goes on.
    """
    begin(has_run=True)
    from nas.jobs import Contest, finalists
    from nas.report import finalists_table

    contest = Contest(count=count, epochs=epochs, seeds=seeds, workers=worker_count(workers))
    found = finalists(run, reporter(), contest, data=data)
    print_result(format_, found, finalists_table, found["candidates"])


class Origin(StrEnum):
    """Where a training starts."""

    SCRATCH = "scratch"
    INHERITED = "inherited"


@alone.command(epilog=example("retrain results/digits-1 --pick knee --seeds 3 --to my_vit"))
def retrain(
    run: RunArgument,
    pick: PickOption,
    start: Annotated[
        Origin, typer.Option("--from", help="Start at random weights, or at those of the trained supernet.")
    ] = Origin.SCRATCH,
    seeds: AloneSeedsOption = 1,
    epochs: AloneEpochsOption = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Train this, too, the same way; repeatable. plain (default): the best plain ViT measured at no more "
            "MACs | whole: the largest network of the space, such as a trained start | narrow: the plain ViT of the "
            "space next below in MACs, from random weights | timm:NAME: a model of timm, from random weights, with a "
            "tag (timm:NAME.TAG) from its trained ones | none."
        ),
    ] = None,
    teacher: TeacherOption = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="train.KEY=VALUE of the recipe; repeatable.")
    ] = None,
    workers: WorkersOption = None,
    to: Annotated[
        Path | None, typer.Option(help="Write the network that is best on the search split as a bundle here.")
    ] = None,
    data: MovedDataOption = None,
    format_: FormatOption = None,
) -> None:
    """Train an architecture of the front alone, then test it, beside baselines trained the same way.

    Takes long; every finished training is kept, and the same command goes on.
    """
    from nas.report import retrain_table, training_rows
    from nas.settings import check_retraining

    baselines = tuple(dict.fromkeys(baseline or ["plain"]))
    check_retraining(seeds, settings or (), baselines)
    begin(has_run=True)
    from nas.jobs import Request, retrain

    recipe = tuple(settings or ())
    request = Request(
        pick=pick, start=start.value, seeds=seeds, epochs=epochs, teacher=teacher, settings=recipe, baselines=baselines
    )
    found = retrain(run, request, reporter(), workers=worker_count(workers), directory=to, data=data)
    print_result(format_, found, retrain_table, training_rows(found))
    if to is None:  # trained already: the same command with a folder writes the bundle
        next_step(rename_program(request.command(run, pick, Path(free_folder("my_vit"))), program_name()))
    else:
        next_validate(to, run, data)
