"""`push_bundle`: a bundle onto the Hugging Face hub, by the hub's own client, which alone knows the token."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError

from nas.base import ConfigError, HubError, one_line
from nas.bundle.bundle import CARD, OWN_FILES, check_bundle, check_there
from nas.bundle.card import HUB_NAME
from nas.model import check_inside

NAME = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9])?"
NO_CONNECTION: tuple[Any, ...] = (HfHubHTTPError.__bases__[0], ConnectionError)
"""Base of what the client's HTTP library raises (its releases have another one), and what it raises when offline."""


def push_bundle(
    folder: Path, repo: str, *, private: bool, dry_run: bool, on_step: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Put the files of a bundle into a repository `USER/NAME` of the hub, made if it is not there, as one commit.

    Nothing else of the folder goes, and the card names the repository. `dry_run` only looks. Returns JSON values: the
    repository, the files with their sizes, the licence or null, and `url`, of the commit, null where nothing was done.

    Raises:
        ConfigError: There is no bundle or no token, the repository's name is none, or a file is a link out of the
            folder.
        ExportError: It is a damaged bundle, or not the one that was compared with its network.
        HubError: The hub cannot be reached, or refuses.
    """
    endpoint = constants.ENDPOINT  # HF_ENDPOINT, where it is set
    if not re.fullmatch(f"{NAME}/{NAME}", repo, re.ASCII) or re.search(r"--|\.\.|\.git$", repo):
        raise ConfigError(f"--repo {repo}: it has to be USER/NAME, as the hub allows", hint="such as --repo me/my_vit")
    check_there(folder)
    table = check_bundle(folder)
    names = sorted(OWN_FILES & {path.name for path in folder.iterdir()})
    check_inside(folder, *(folder / name for name in names))
    files = [{"file": name, "size_bytes": (folder / name).stat().st_size} for name in names]
    found = {"repo": repo, "endpoint": endpoint, "private": private, "license": table.get("license"), "files": files}
    if dry_run:
        return {**found, "url": None}
    if get_token() is None:
        raise ConfigError(
            "the hub asks who you are, and there is no token", hint="log in by `hf auth login`, or set HF_TOKEN"
        )
    card = (folder / CARD).read_text(encoding="utf-8").replace(HUB_NAME, repo).encode()
    adds = [CommitOperationAdd(name, card if name == CARD else str(folder / name)) for name in names]
    hub = HfApi(endpoint=endpoint)
    on_step(f"{len(files)} files to {repo} at {endpoint}")
    try:
        hub.create_repo(repo, private=private or None, exist_ok=True)
        done = hub.create_commit(repo, adds, commit_message=f"Bundle of {table['digest']}")
    except HfHubHTTPError as error:
        words = error.server_message or re.sub(r"\(Request ID.*?\)", "", str(error))
        raise HubError(
            f"{endpoint} answers {error.response.status_code} for {repo}: {one_line(words)}",
            hint="a token that may write there, of this user or organisation",
        ) from error
    except NO_CONNECTION as error:
        raise HubError(
            f"{endpoint} cannot be reached: {one_line(str(error)) or type(error).__name__}",
            hint="HF_ENDPOINT names another hub; `hf upload` sends the same folder from a machine with a network",
        ) from error
    return {**found, "url": done.commit_url}
