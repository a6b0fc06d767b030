"""What a rehearsal measures: lines through samples, how busy workers are, memory, sizes."""

import subprocess
import sys

import pytest

from nas.jobs.dry_run.rehearsal import MemoryWatch, line_through, parallelism, size_of

# --- what a rehearsal makes of its samples ---


def test_line_is_not_moved_by_a_disturbed_sample():
    assert line_through([0, 1, 2, 3, 4], [2, 5, 8, 90, 14]) == pytest.approx((2.0, 3.0))


def test_line_never_falls_and_needs_no_second_value():
    assert line_through([1, 2, 3], [6, 5, 4]) == (5.0, 0.0)
    assert line_through([2, 2, 2], [1, 3, 2]) == (2.0, 0.0)


def test_workers_that_are_always_busy_count_whole():
    assert parallelism([(0, 2), (0, 2), (2, 4), (2, 4), (4, 6), (4, 6)], 2) == 2.0


def test_time_between_measurements_counts_as_idle():
    # From 0 to 4.5, when the last one began: 3 of 4.5 seconds.
    assert parallelism([(0, 1), (1.5, 2.5), (3, 4), (4.5, 5.5)], 1) == pytest.approx(2 / 3)


def test_a_worker_that_starts_later_does_not_count_before():
    assert parallelism([(0, 1), (1, 2), (2, 3), (2, 3), (3, 4), (3, 4)], 2) == 2.0


def test_one_measurement_is_one_at_a_time():
    assert parallelism([(3, 4)], 2) == 1.0


def test_memory_of_a_program_that_was_started_is_its_own():
    with MemoryWatch() as memory:
        code = "import sys; held = b'x' * 200_000_000; print(flush=True); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            other.stdout.read(1)
            own = memory.own
            while memory.others < 200_000_000:
                pass
            other.stdin.close()
    assert memory.total >= memory.others >= 200_000_000
    assert memory.total >= own > 0


def test_size_is_that_of_all_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(7))
    (tmp_path / "c").write_bytes(bytes(5))
    assert (size_of(tmp_path), size_of(tmp_path / "c"), size_of(tmp_path / "d")) == (12, 5, 0)
