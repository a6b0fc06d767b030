"""A Ray of our own on this machine, which nobody else can see, reach or use.

It listens on the loopback interface only, asks for a token that lies in a folder of this user's, and keeps its sockets
and logs there. Ray's own default is all interfaces, folders that everybody may write into, and a token in the home
folder that everybody may read.
"""

import ipaddress
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from nas.base import RunError

PREFIX = "nas-ray-"
TOKEN = "token"
_LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""0 makes Ray take 127.0.0.1 for this machine's address on Linux, too; `_node_ip_address` is replaced by another."""


@contextmanager
def own_ray(ray: ModuleType, **options: Any) -> Iterator[Path]:
    """Start a Ray on this machine for a `with` block, and lend its folder; `options` are more arguments of `ray.init`.

    Raises:
        RunError: It can be reached from other machines, so it was stopped.
    """
    folder = Path(_scratch_folder())
    try:
        token = folder / TOKEN
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        # Ray opens its own folder to everybody, so it gets one inside ours, with a short name: the paths of sockets
        # have at most 107 characters.
        with _environment(ray, _variables(token)):
            try:
                ray.init(address="local", include_dashboard=False, _temp_dir=str(folder / "r"), **options)
                _check_private(ray)
                yield folder
            finally:
                ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _variables(token: Path) -> dict[str, str | None]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_AUTH_TOKEN": None,  # it would go before the file
        _LOOPBACK_ONLY: "0",
        # Of processes that train together: their own choice is the interface of the machine's name.
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),  # for the actors
    }


@contextmanager
def _environment(ray: ModuleType, variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables, or remove those that are None, and restore them at the end; Ray reads them anew both times."""
    constants = ray._private.ray_constants
    before, is_cluster = {name: os.environ.get(name) for name in variables}, constants.ENABLE_RAY_CLUSTER
    try:
        _set(ray, variables)
        constants.ENABLE_RAY_CLUSTER = False
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = is_cluster
        _set(ray, before)


def _set(ray: ModuleType, variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


def _check_private(ray: ModuleType) -> None:
    host = ray.get_runtime_context().gcs_address.rpartition(":")[0].strip("[]")
    if not ipaddress.ip_address(host).is_loopback:
        raise RunError(
            f"Ray would listen on {host}, where other machines can reach it",
            hint="--workers 0 does without Ray; or start a cluster and give its --ray-address",
        )


def _scratch_folder() -> str:
    """Make a folder for Ray's sockets and logs; remove those of processes that were killed."""
    root = Path("/tmp")  # short, because of the paths of sockets
    for folder in root.glob(f"{PREFIX}*"):
        owner = folder.name.split("-")[2]
        with suppress(OSError):
            mine = not folder.is_symlink() and folder.stat().st_uid == os.getuid()
            if mine and owner.isdecimal() and not Path("/proc", owner).exists() and Path("/proc/self").exists():
                shutil.rmtree(folder, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=root)
