import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from nas.base.errors import RunError
from nas.search.journal import GroupCommitJournal

REPOSITORY = Path(__file__).parents[2]


def record(number: int) -> dict[str, object]:
    return {"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"number": number, "text": "ü\n}"}}


def numbers(journal: GroupCommitJournal, first: int = 0) -> list[object]:
    return [log["user_attr"]["number"] for log in journal.read_logs(first)]


def write(path: Path, *groups: range) -> bytes:
    journal = GroupCommitJournal(path)
    for group in groups:
        journal.append_logs([record(number) for number in group])
        journal.commit()
    journal.close()
    return path.read_bytes()


def test_appended_records_are_seen_at_once_and_on_disk_after_commit(tmp_path):
    path = tmp_path / "journal.log"
    journal = GroupCommitJournal(path)
    journal.append_logs([record(0)])
    journal.append_logs([record(1), record(2)])
    assert numbers(journal) == [0, 1, 2]
    assert path.read_bytes() == b""
    journal.commit()
    journal.append_logs([record(3)])
    assert len(path.read_bytes().splitlines()) == 3
    assert numbers(journal) == [0, 1, 2, 3]
    assert numbers(journal, 2) == [2, 3]
    assert numbers(journal, 4) == []
    journal.close()


def test_closing_drops_what_was_not_committed(tmp_path):
    path = tmp_path / "journal.log"
    journal = GroupCommitJournal(path)
    journal.append_logs([record(0)])
    journal.commit()
    journal.append_logs([record(1)])
    journal.close()
    reopened = GroupCommitJournal(path)
    assert numbers(reopened) == [0]
    reopened.close()


def test_optunas_own_backend_reads_the_file(tmp_path):
    path = tmp_path / "journal.log"
    journal = GroupCommitJournal(path)
    study = optuna.create_study(storage=JournalStorage(journal), study_name="s", directions=["maximize", "minimize"])
    for _ in range(3):
        trial = study.ask({"x": optuna.distributions.CategoricalDistribution(["a", "b"])})
        study.tell(trial, [1.5, 2.0])
        journal.commit()
    stock = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    assert stock.get_trials() == study.get_trials()
    journal.close()


def test_a_torn_tail_is_cut_back_to_the_last_whole_commit(tmp_path):
    path = tmp_path / "journal.log"
    whole = len(write(path, range(2)))
    content = write(path, range(2, 5))
    for cut in range(whole, len(content)):
        path.write_bytes(content[:cut])
        journal = GroupCommitJournal(path)
        assert numbers(journal) == [0, 1], f"cut at byte {cut}"
        assert path.stat().st_size == whole
        journal.close()
    journal = GroupCommitJournal(path)
    journal.append_logs([record(9)])
    journal.commit()
    journal.close()
    stock = JournalFileBackend(str(path))
    assert [log["user_attr"]["number"] for log in stock.read_logs(0)] == [0, 1, 9]


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"\0" * 50 + b"\n" + b"\0" * 7], ids=["zeros", "zeros and newline"])
def test_zeros_left_by_a_power_failure_are_cut_off(tmp_path, tail):
    path = tmp_path / "journal.log"
    content = write(path, range(3))
    path.write_bytes(content + tail)
    GroupCommitJournal(path).close()
    assert path.read_bytes() == content


@pytest.mark.parametrize("torn", [b'{"op_', b'{"op_code":0,"work', b"\0\0\0\0"])
def test_a_torn_first_commit_leaves_an_empty_journal(tmp_path, torn):
    path = tmp_path / "journal.log"
    path.write_bytes(torn)
    GroupCommitJournal(path).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("content", [b"my notes", b"my notes\nmore\n", b'[{"a": 1}'])
def test_a_file_that_is_no_journal_is_refused_and_not_touched(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"notes\.txt is not an Optuna journal"):
        GroupCommitJournal(path)
    assert path.read_bytes() == content


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "journal.log"
    lines = write(path, range(1), range(1, 2), range(2, 3)).splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    journal = GroupCommitJournal(path)
    with pytest.raises(RunError, match="line 2"):
        list(journal.read_logs(0))
    journal.close()


def test_a_folder_that_is_missing_is_one_clear_error(tmp_path):
    with pytest.raises(RunError, match="No such file or directory"):
        GroupCommitJournal(tmp_path / "missing" / "journal.log")


def test_a_second_writer_is_refused_by_the_number_of_the_first(tmp_path):
    path = tmp_path / "journal.log"
    first = GroupCommitJournal(path)
    with pytest.raises(RunError, match=f"journal.log is being written by process {os.getpid()}"):
        GroupCommitJournal(path)
    first.close()
    GroupCommitJournal(path).close()


def test_a_full_disk_leaves_the_file_as_it_was_and_commit_can_be_repeated(tmp_path):
    path = tmp_path / "journal.log"
    journal = GroupCommitJournal(path)
    journal.append_logs([record(0)])
    journal.commit()
    before = path.read_bytes()
    journal.append_logs([record(1), record(2)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 40, hard))
    try:
        with pytest.raises(RunError, match="not written"):
            journal.commit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    journal.commit()
    journal.close()
    reopened = GroupCommitJournal(path)
    assert numbers(reopened) == [0, 1, 2]
    reopened.close()


WRITER = """
import sys
from nas.search.journal import GroupCommitJournal
journal = GroupCommitJournal(sys.argv[1])
for group in range(100_000):
    journal.append_logs([{"op_code": 2, "group": group, "part": part} for part in range(7)])
    journal.commit()
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_time_leaves_whole_commits(tmp_path):
    path = tmp_path / "journal.log"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=REPOSITORY)
    deadline = time.monotonic() + 60
    while (not path.exists() or path.stat().st_size < 20_000) and time.monotonic() < deadline:
        time.sleep(0.005)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    journal = GroupCommitJournal(path)
    logs = list(journal.read_logs(0))
    journal.close()
    assert len(logs) > 100
    assert [(log["group"], log["part"]) for log in logs] == [(i // 7, i % 7) for i in range(len(logs))]
    assert len(logs) % 7 == 0
    assert all(json.loads(line) for line in path.read_bytes().splitlines())
