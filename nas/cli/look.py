"""Commands that change no run. Only `rank-layers` (computes), `doctor` (tests) and `check --init` import torch."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nas.base import Reporter
from nas.cli.options import (
    DEFAULT_SPACE,
    PICK_HELP,
    DataOption,
    DeviceOption,
    FormatOption,
    InitOption,
    RunArgument,
    SeedOption,
    SetOption,
    SpaceArgument,
    example,
)
from nas.cli.output import fits, plain, print_result, reporter, show_front, tell_doubts, watch_status

look = typer.Typer()


@look.command(epilog=example("check cifar_small"))
def check(
    space: SpaceArgument = DEFAULT_SPACE,
    init: InitOption = None,
    settings: SetOption = None,
    format_: FormatOption = None,
) -> None:
    """Validate a search space; print its size and the range of its costs."""
    from nas.report import space_summary, space_table
    from nas.space import check_memory, read_space

    found = read_space(space, tuple(settings or ()))
    check_memory(found)
    if init is not None:
        from nas.initial import check_init
        from nas.settings import located_path

        check_init(found, located_path(init, [Path.cwd()]))
    summary = space_summary(found)
    print_result(format_, summary, space_table, [summary])


@look.command(epilog=example("spaces"))
def spaces(format_: FormatOption = None) -> None:
    """The search spaces that come with the program: how many networks, what they cost. `run NAME` takes one."""
    from nas.report import spaces_table
    from nas.settings import shipped_spaces
    from nas.space import read_space

    rows = []
    for name, file in shipped_spaces().items():
        space = read_space(name)
        costs = {"macs": list(space.macs_range()), "params": list(space.params_range())}
        about = {"name": name, "image_size": space.backbone.image_size, "architectures": space.size(), **costs}
        rows.append({**about, "weights": space.backbone.timm or None, "file": str(file)})
    print_result(format_, {"schema_version": 1, "spaces": rows}, spaces_table, rows)


@look.command(epilog=example("runs results"))
def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the runs lie.")] = Path("results"),
    format_: FormatOption = None,
) -> None:
    """The runs in a folder, the newest first: space, state, trials, front."""
    from nas.report import run_rows, runs_table

    rows = run_rows(folder)
    print_result(format_, {"schema_version": 1, "folder": str(folder), "runs": rows}, runs_table, rows)


@look.command(epilog=example("status results/digits-1 --watch"))
def status(
    run: RunArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it until the run has ended.")] = False,
    format_: FormatOption = None,
) -> None:
    """Trials by state, hypervolume so far, throughput, time left."""
    from nas.report import status_dict, status_table
    from nas.runs import RunDirectory

    found = RunDirectory.open(run)
    if watch:
        watch_status(found)
    values = status_dict(found)
    tell_doubts(run)
    print_result(format_, values, status_table, [values])


@look.command(epilog=example("front results/digits-1 --max-macs 3e5 --sort top1"))
def front(
    run: RunArgument,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(
            help="Only up to this latency, ms a batch: of 64 images below 128 px, else of 1, unless --target said more."
        ),
    ] = None,
    max_macs: Annotated[float | None, typer.Option(help="Only up to these MACs per image, such as 30e6.")] = None,
    max_params: Annotated[float | None, typer.Option(help="Only up to this number of parameters.")] = None,
    min_top1: Annotated[float | None, typer.Option(help="Only from this top-1 on, percent.")] = None,
    sort: Annotated[str | None, typer.Option(help="top1 | macs | params | latency_ms.")] = None,
    format_: FormatOption = None,
) -> None:
    """The Pareto front."""
    from nas.report import nothing_fits
    from nas.runs import front_of

    whole = found = front_of(run)
    tell_doubts(run)
    maxima = {"latency_ms": max_latency_ms, "macs": max_macs, "params": max_params}
    bounds = {name: maximum for name, maximum in maxima.items() if maximum is not None}
    for name, maximum in bounds.items():
        found = found.within(name, maximum=maximum)
    if min_top1 is not None:
        found = found.within("top1", minimum=min_top1)
    if whole.points and not found.points:
        reporter().line("note", nothing_fits(whole, [*bounds, *(["top1"] if min_top1 is not None else [])]))
    show_front(run, found.sorted_by(sort) if sort else found, format_, whole=whole)


@look.command(epilog=example("show results/digits-1 knee"))
def show(run: RunArgument, pick: Annotated[str, typer.Argument(help=PICK_HELP)], format_: FormatOption = None) -> None:
    """One architecture, layer by layer: tokens, operators, MACs, share of latency."""
    from nas.report import show_rows, show_table
    from nas.runs import RunDirectory, front_of, space_of_run

    backbone = space_of_run(RunDirectory.open(run)).backbone
    point = front_of(run).pick(pick)
    tell_doubts(run)
    rows = show_rows(point, backbone)
    values = {"schema_version": 1, "digest": point.digest, "layers": rows, "architecture": point.architecture.to_dict()}

    def fitting(_: Any) -> Any:
        table = show_table(point, backbone)
        return table if fits(table) else show_table(point, backbone, bars=False)

    print_result(format_, values, fitting, rows)


@look.command(epilog=example("compare results/digits-1 results/digits-2"))
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="The folders of two runs or more.")],
    format_: FormatOption = None,
) -> None:
    """Runs side by side: fronts, hypervolumes with one reference, what was different.

    Of more than two, those that differ by the seed alone are a group: medians, intervals, differences seed by seed.
    """
    from nas.report import compare_rows, compare_runs, compare_tables

    found = compare_runs(*runs)
    for run in runs:
        tell_doubts(run)
    print_result(format_, found, compare_tables, compare_rows(found))


@look.command(epilog=example("report results/digits-1"))
def report(
    run: RunArgument,
    random: Annotated[
        Path | None, typer.Option(metavar="RUN", help="A random search on the same weights, drawn beside it.")
    ] = None,
    format_: FormatOption = None,
) -> None:
    """Write report.html, one page that needs no network, and the figures as PNG and PDF."""
    from nas.report import front_notes, write_report
    from nas.runs import RunDirectory, front_of, space_of_run

    found = RunDirectory.open(run)
    tell_doubts(run)
    files = write_report(found, None if random is None else RunDirectory.open(random))
    rows = [{"file": str(path), "bytes": path.stat().st_size} for path in files]
    told = front_notes(front_of(run), space_of_run(found))
    for note in told["notes"]:
        reporter().line("note", note)
    values = {"schema_version": 1, "run": found.name, "files": rows, **told}
    print_result(format_, values, lambda _: plain("\n".join(map(str, files))), rows)


@look.command(epilog=example("doctor"))
def doctor(format_: FormatOption = None) -> None:
    """Versions, devices, self-tests, and what is missing."""
    from nas.cli.doctor import diagnose, diagnosis_table

    findings = diagnose()
    print_result(format_, findings, diagnosis_table, findings["checks"])
    if not findings["healthy"]:
        raise typer.Exit(1)


@look.command(epilog=example("cache --sweep"))
def cache(
    sweep: Annotated[bool, typer.Option("--sweep", help="Delete all that no process of this machine uses.")] = False,
    format_: FormatOption = None,
) -> None:
    """Decoded images that runs share: what there is, how large, when it was used; any may be deleted."""
    from nas.cli.cache import cache_table, cached
    from nas.data import cache_folder

    rows = cached(sweep=sweep)
    values = {"schema_version": 1, "folder": str(cache_folder()), "swept": sweep, "files": rows}
    print_result(format_, values, cache_table, rows)


@look.command("rank-layers", epilog=example("rank-layers results/digits-1"))
def rank_layers(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|SPACE.yaml", help="A trained run; or a space, with --init and --data.")
    ],
    init: InitOption = None,
    data: DataOption = None,
    images: Annotated[int, typer.Option(min=2, max=1_000_000_000, help="Training images to look at.")] = 1000,
    seed: SeedOption = None,
    device: DeviceOption = None,
    settings: SetOption = None,
    format_: FormatOption = None,
) -> None:
    """How redundant each layer's attention is: where static, shared or derived maps, or fewer tokens, are safe."""
    from nas.initial import rank_supernet, rank_weights
    from nas.report import redundancy_table

    if source.is_dir():
        from nas.jobs import reopen
        from nas.training import load_trained

        session = reopen(source, Reporter(quiet=True), data)
        supernet = load_trained(session.run, session.space, session.device)
        found = rank_supernet(supernet, session.data.train, session.device, images, str(source))
    else:
        found = rank_weights(source, init, data, images, seed, device, tuple(settings or ()))
    print_result(format_, found, redundancy_table, found["layers"])
