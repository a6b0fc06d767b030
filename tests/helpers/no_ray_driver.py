"""The command line on a machine without Ray."""

import importlib.metadata
import sys
from typing import Any


class WithoutRay:
    """Finds no Ray, first of all finders."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> None:
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def from_name(name: str) -> importlib.metadata.Distribution:
    if name == "ray":
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)


known = importlib.metadata.Distribution.from_name
importlib.metadata.Distribution.from_name = from_name
sys.meta_path.insert(0, WithoutRay)

from nas.cli.app import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
