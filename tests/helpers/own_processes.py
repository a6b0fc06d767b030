"""What the processes of a test are like at a moment, of which any may end while it is looked at."""

import contextlib
from collections.abc import Callable
from itertools import chain
from typing import TypeVar

import psutil

T = TypeVar("T")


def seen_of(look: Callable[[psutil.Process], T], *, itself: bool = True) -> list[T]:
    """What is seen of this process, if `itself`, and of all below it, without those that have just ended."""
    me, found = psutil.Process(), []
    for process in [*([me] if itself else []), *me.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie too
            found.append(look(process))
    return found


def listening() -> set[tuple[str, int]]:
    """Addresses and TCP ports that this process and those below it listen on."""
    connections = chain.from_iterable(seen_of(lambda process: process.net_connections("tcp")))
    return {(each.laddr.ip, each.laddr.port) for each in connections if each.status == psutil.CONN_LISTEN}
