"""Memory that runs out, wherever it does, and the one line that says so."""

import errno
import re
import resource
from pathlib import Path

from nas.base.errors import NasError, one_line

TORCH_WORDS = "DefaultCPUAllocator: "
WORDS = re.compile(
    rf"{TORCH_WORDS}|can't allocate memory|[Cc]annot allocate memory|failed to map segment|can't start new thread"
    "|bad_alloc"
)  # of torch on a CPU, and of what fails where packages are loaded
LITTLE_BYTES = 64_000_000


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python and CUDA have an exception for it, a CPU's torch and the loader only words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if WORDS.search(str(error)):
        return True
    # Of libraries that do not say why (oneDNN: "could not create a primitive"), and Python's own without an exception.
    held, limit = _held()
    at_limit = limit is not None and held > limit - LITTLE_BYTES
    return at_limit and isinstance(error, SystemError | RuntimeError | ImportError)


def memory_error(error: BaseException) -> NasError | None:
    """The line for an exception that says that memory ran out, with what this process held and may hold."""
    if not is_out_of_memory(error):
        return None
    held, limit = _held()
    facts = f"this process held {held / 1e6:,.0f} MB"
    if limit is not None:
        facts += f" and may hold {limit / 1e6:,.0f} MB (`ulimit -v`)"
    lines = str(error).splitlines() or [""]
    words = one_line(next((line for line in lines if WORDS.search(line)), lines[0]).rpartition(TORCH_WORDS)[2])
    return NasError(
        f"out of memory{f': {words}' if words else ''}; {facts}",
        hint="more memory, smaller batches or fewer workers; what is finished is kept, and the same command goes on",
    )


def _held() -> tuple[int, int | None]:
    """How much address space this process has had at most, and the limit that it is under, bytes."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    found = re.search(r"VmPeak:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0, None if limit == resource.RLIM_INFINITY else limit
