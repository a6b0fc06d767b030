"""Memory that runs out is recognised wherever it does, and told in one line."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from nas.base import memory
from nas.base.memory import is_out_of_memory, memory_error

NO_MEMORY = [
    MemoryError(),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    RuntimeError("can't start new thread"),
    RuntimeError("[x] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
]


@pytest.mark.parametrize("error", NO_MEMORY)
def test_what_says_that_memory_ran_out_is_one_line_with_what_was_held(error):
    found = memory_error(error)
    assert found.message.startswith("out of memory")
    assert "MB" in found.message
    assert "\n" not in found.message
    assert "the same command goes on" in found.hint


@pytest.mark.parametrize(
    "error", [ImportError("no module"), OSError(2, "no", "x"), RuntimeError("shapes"), KeyError(1)]
)
def test_other_errors_are_left_alone(error):
    assert memory_error(error) is None


def test_the_words_of_torch_say_how_much_was_asked_for():
    found = memory_error(NO_MEMORY[-1])
    assert found.message.startswith("out of memory: can't allocate memory: you tried to allocate 8 bytes; ")


def test_memory_that_torch_cannot_allocate_is_recognised():
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error", [SystemError("error return without exception set"), RuntimeError("could not create a primitive")]
)
def test_what_does_not_say_why_counts_where_the_limit_is_reached(error, monkeypatch):
    assert memory_error(error) is None
    monkeypatch.setattr(memory, "_held", lambda: (990_000_000, 1_000_000_000))
    assert "this process held 990 MB and may hold 1,000 MB (`ulimit -v`)" in memory_error(error).message
    assert memory_error(KeyError("x")) is None


def test_a_command_that_cannot_even_load_its_packages_says_so_in_one_line(tmp_path):
    limit = 400 << 20  # a library of torch's has no room
    done = subprocess.run(
        [sys.executable, Path(__file__).parents[2] / "search.py", "run", "--run", "r"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 2
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["start", "error:", "hint:"]
    assert "error: out of memory" in done.stderr
    assert f"may hold {limit / 1e6:,.0f} MB (`ulimit -v`)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
