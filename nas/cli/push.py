"""`push`: a bundle onto the Hugging Face hub."""

import os
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.options import FormatOption, example
from nas.cli.output import COMMON, begin, print_result, reporter

push = typer.Typer()


@push.command("push", epilog=example("push my_vit --repo me/my_vit --private"))
def _push(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `export` wrote.")],
    repo: Annotated[str, typer.Option(metavar="USER/NAME", help="Of the hub; made if it is not there.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private; one that is there stays as it is.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be pushed; ask nobody.")] = False,
    format_: FormatOption = None,
) -> None:
    """Put a model bundle onto the Hugging Face hub.

    Its files have to be those that `export` compared. The token is that of `hf auth login` or HF_TOKEN; HF_ENDPOINT
    names another hub.
    """
    from nas.report import push_table

    if COMMON.quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    begin(has_run=False)
    from nas.bundle import push_bundle

    say = reporter()
    found = push_bundle(bundle, repo, private=private, dry_run=dry_run, on_step=lambda text: say.line("push", text))
    if found["license"] is None:
        say.line("note", "no licence is named, so nobody may use the weights: `export --license` names one")
    if found["url"] is not None:
        say.line("push", found["url"])
    print_result(format_, found, push_table, found["files"])
