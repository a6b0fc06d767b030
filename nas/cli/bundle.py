"""`export`, `predict` and `validate`: a bundle, and what it does."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.options import DataOption, DeviceOption, FormatOption, MovedDataOption, PickOption, RunArgument, example
from nas.cli.output import begin, next_validate, print_result, reporter

bundle = typer.Typer()


@bundle.command(epilog=example("export results/digits-1 --pick knee --to my_vit --formats timm,onnx"))
def export(
    run: RunArgument,
    pick: PickOption,
    to: Annotated[Path, typer.Option(help="Folder of the model bundle.")],
    formats: Annotated[
        str, typer.Option(help="Comma-separated: timm, pt2, onnx, onnx-int8, openvino.")
    ] = "timm,pt2,onnx",
    opset: Annotated[
        int | None, typer.Option(help="Of ONNX, 18 or more; default: that of the installed torch.")
    ] = None,
    max_int8_loss: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Points of top-1 that onnx-int8 may lose on the search split; default: 1."),
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="Of the weights, such as apache-2.0; default: the bundle says none.")
    ] = None,
    data: MovedDataOption = None,
    format_: FormatOption = None,
) -> None:
    """Write an architecture as a model bundle, reload it, and fail if anything differs from the table.

    Any architecture of the run's space: a point of the front, what else was measured (by its digest), or a file.
    """
    from nas.bundle import BundleOptions
    from nas.jobs import export_pick
    from nas.report import export_tables

    chosen = tuple(formats.split(","))
    options = BundleOptions(formats=chosen, opset=opset, max_int8_loss=max_int8_loss, license=license_)
    values = export_pick(run, pick, to, options, reporter(), data).to_dict()
    print_result(format_, values, export_tables, values["files"])
    next_validate(to, run, data)


class Runtime(StrEnum):
    """What runs a bundle: a key of `nas.bundle.RUNTIMES`."""

    TORCH = "torch"
    ONNX = "onnx"
    ONNX_INT8 = "onnx-int8"
    OPENVINO = "openvino"


class Split(StrEnum):
    """Which images: one of `nas.jobs.bundles.validate.SPLITS`."""

    TEST = "test"
    SEARCH = "search"
    TRAIN = "train"
    ALL = "all"


BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that `export` wrote.")]
RuntimeOption = Annotated[
    Runtime | None, typer.Option(help="Which of its files is run. Default: torch (through timm), else what it has.")
]
SkipOption = Annotated[bool, typer.Option("--skip-bad-images", help="Leave unreadable images out instead of stopping.")]


@bundle.command(epilog=example("predict my_vit photos --top 3"))
def predict(
    folder: BundleArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="So many of the most probable classes of each.")] = 3,
    runtime: RuntimeOption = None,
    device: DeviceOption = None,
    skip_bad_images: SkipOption = False,
    format_: FormatOption = None,
) -> None:
    """Which classes an exported model sees in images, and how probable it finds them."""
    begin(has_run=False)
    from nas.bundle import open_bundle
    from nas.jobs import predict as predicted
    from nas.jobs import prediction_rows
    from nas.latency import resolve_device
    from nas.report import predict_table

    opened = open_bundle(folder, runtime, resolve_device(device or "auto"))
    found = predicted(opened, images, top, reporter(), skip_bad_images=skip_bad_images)
    print_result(format_, found, predict_table, prediction_rows(found))


@bundle.command(epilog=example("validate my_vit --data folder:photos"))
def validate(
    folder: BundleArgument,
    data: DataOption = None,
    split: Annotated[Split, typer.Option(help="Which of the images; all: every one, of every split.")] = Split.TEST,
    runtime: RuntimeOption = None,
    seed: Annotated[int | None, typer.Option(help="Of the splits. Default: that of the bundle's run.")] = None,
    device: DeviceOption = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="data.KEY=VALUE; repeatable.")] = None,
    skip_bad_images: SkipOption = False,
    format_: FormatOption = None,
) -> None:
    """Top-1 of an exported model on labelled images, in all and by class, with intervals."""
    begin(has_run=False)
    from nas.bundle import open_bundle
    from nas.jobs import validate as validated
    from nas.latency import resolve_device
    from nas.report import validate_table

    opened = open_bundle(folder, runtime, resolve_device(device or "auto"))
    given = [*(settings or ()), *(["data.skip_bad_images=true"] if skip_bad_images else [])]
    found = validated(opened, data or "digits", split, given, reporter(), seed)
    print_result(format_, found, validate_table, found["classes"])
