"""The journal is written record by record, and any beginning of it is enough for the same search."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from search_fakes import AnalyticEvaluator, digits, outline, search, tiny_space

from nas.base.disk import DiskError
from nas.base.errors import RunError
from nas.study.journal import SearchJournal

REPOSITORY = Path(__file__).parents[2]


def record(number: int) -> dict[str, object]:
    return {"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"number": number, "text": "ü\n}"}}


def numbers(journal: SearchJournal, first: int = 0) -> list[object]:
    return [log["user_attr"]["number"] for log in journal.read_logs(first)]


def write(path: Path, count: int) -> bytes:
    journal = SearchJournal(path)
    journal.append_logs([record(number) for number in range(count)])
    journal.close()
    return path.read_bytes()


def test_records_are_seen_at_once_here_and_in_the_file(tmp_path):
    path = tmp_path / "journal.log"
    journal = SearchJournal(path)
    journal.append_logs([record(0)])
    assert numbers(journal) == [0]
    journal.append_logs([record(1), record(2)])
    assert numbers(journal, 1) == [1, 2]
    assert numbers(journal, 1) == [1, 2]
    assert numbers(journal, 3) == []
    assert len(path.read_bytes().splitlines()) == 3
    journal.close()
    reopened = SearchJournal(path)
    assert numbers(reopened) == [0, 1, 2]
    reopened.append_logs([record(3)])
    assert numbers(reopened, 2) == [2, 3]
    assert numbers(reopened, 3) == [3]
    reopened.close()


def test_optunas_own_backend_reads_the_file(tmp_path):
    path = tmp_path / "journal.log"
    journal = SearchJournal(path)
    study = optuna.create_study(storage=JournalStorage(journal), study_name="s", directions=["maximize", "minimize"])
    for _ in range(3):
        trial = study.ask({"x": optuna.distributions.CategoricalDistribution(["a", "b"])})
        study.tell(trial, [1.5, 2.0])
    stock = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    assert stock.get_trials() == study.get_trials()
    journal.close()


def test_a_torn_tail_is_cut_back_to_the_last_whole_record(tmp_path):
    path = tmp_path / "journal.log"
    whole = len(write(path, 2))
    content = write(path, 1)
    for cut in range(whole, len(content)):
        path.write_bytes(content[:cut])
        journal = SearchJournal(path)
        assert numbers(journal) == [0, 1], f"cut at byte {cut}"
        assert path.stat().st_size == whole
        journal.close()
    journal = SearchJournal(path)
    journal.append_logs([record(9)])
    journal.close()
    stock = JournalFileBackend(str(path))
    assert [log["user_attr"]["number"] for log in stock.read_logs(0)] == [0, 1, 9]


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"\0" * 50 + b"\n" + b"\0" * 7], ids=["zeros", "zeros and newline"])
def test_zeros_left_by_a_power_failure_are_cut_off(tmp_path, tail):
    path = tmp_path / "journal.log"
    content = write(path, 3)
    path.write_bytes(content + tail)
    SearchJournal(path).close()
    assert path.read_bytes() == content


@pytest.mark.parametrize("torn", [b'{"op_', b'{"op_code":0,"work', b"\0\0\0\0"])
def test_a_torn_first_record_leaves_an_empty_journal(tmp_path, torn):
    path = tmp_path / "journal.log"
    path.write_bytes(torn)
    SearchJournal(path).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("content", [b"my notes", b"my notes\nmore\n", b'[{"a": 1}'])
def test_a_file_that_is_no_journal_is_refused_and_not_touched(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"notes\.txt is not an Optuna journal"):
        SearchJournal(path)
    assert path.read_bytes() == content


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "journal.log"
    lines = write(path, 3).splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    journal = SearchJournal(path)
    with pytest.raises(RunError, match="line 2"):
        list(journal.read_logs(0))
    journal.close()


def test_a_folder_that_is_missing_is_one_clear_error(tmp_path):
    with pytest.raises(DiskError, match="No such file or directory"):
        SearchJournal(tmp_path / "missing" / "journal.log")


def test_a_second_writer_is_refused(tmp_path):
    path = tmp_path / "journal.log"
    first = SearchJournal(path)
    with pytest.raises(RunError, match=r"journal\.log is being written by another process"):
        SearchJournal(path)
    first.close()
    SearchJournal(path).close()


def test_a_full_disk_is_one_clear_error_and_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "journal.log"
    journal = SearchJournal(path)
    journal.append_logs([record(0)])
    note = {"op_code": 2, "note": "of another process"}
    JournalFileBackend(str(path)).append_logs([note])
    journal.append_logs([record(1)])
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 40, hard))
    try:
        with pytest.raises(DiskError, match="not written"):
            journal.append_logs([record(2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    journal.append_logs([record(2)])
    journal.close()
    assert [json.loads(line) for line in path.read_bytes().splitlines()][1] == note


@pytest.mark.parametrize("sampler", ["predictor", "nsga2", "nsga3", "tpe", "evolution", "random"])
def test_a_search_that_lost_any_end_of_its_journal_proposes_and_pays_as_if_it_had_not(tmp_path, sampler):
    """What a power cut may do to a file that nobody waits for, at any byte."""
    space, log = digits(), tmp_path / "log"
    straight = search(tmp_path / "straight", space, trials=40, sampler=sampler)
    search(tmp_path / "run", space, trials=30, sampler=sampler)
    path = tmp_path / "run" / "journal.log"
    records, content = (tmp_path / "run" / "trials.jsonl").read_bytes(), path.read_bytes()
    for cut in np.random.default_rng(0).integers(len(content), size=4):
        path.write_bytes(content[:cut])
        (tmp_path / "run" / "trials.jsonl").write_bytes(records)
        log.write_text("")
        evaluator = AnalyticEvaluator(space.backbone, log)
        assert outline(search(tmp_path / "run", space, evaluator, trials=40, sampler=sampler)) == outline(straight)
        assert len(log.read_text().split()) == 10


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3"])
def test_a_kill_between_the_choice_of_parents_and_the_proposal_changes_nothing(tmp_path, sampler):
    space = digits()
    straight = outline(search(tmp_path / "straight", space, trials=40, sampler=sampler))
    search(tmp_path / "run", space, trials=40, sampler=sampler)
    path = tmp_path / "run" / "journal.log"
    lines = path.read_bytes().splitlines(keepends=True)
    chosen = [number for number, line in enumerate(lines) if b":parent:" in line]
    assert len(chosen) > 2
    for number in chosen:
        path.write_bytes(b"".join(lines[: number + 1]))
        assert outline(search(tmp_path / "run", space, trials=40, sampler=sampler)) == straight


def test_a_kill_between_the_choice_of_an_unseen_architecture_and_its_proposal_changes_nothing(tmp_path):
    space = tiny_space(num_heads=(1, 2, 3, 4))
    straight = search(tmp_path / "straight", space, trials=16)
    search(tmp_path / "run", space, trials=16)
    path = tmp_path / "run" / "journal.log"
    lines = path.read_bytes().splitlines(keepends=True)
    asked = next(number for number, line in enumerate(lines) if b"layers.00" in line and b"param_name" in line)
    chosen = [number for number, line in enumerate(lines) if b"fixed_params" in line and number > asked]
    assert chosen
    for number in chosen:
        path.write_bytes(b"".join(lines[: number + 1]))
        assert outline(search(tmp_path / "run", space, trials=16)) == outline(straight)


WRITER = """
import sys
from nas.study.journal import SearchJournal
journal = SearchJournal(sys.argv[1])
for number in range(100_000):
    journal.append_logs([{"op_code": 2, "number": number}])
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_time_leaves_whole_records(tmp_path):
    path = tmp_path / "journal.log"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=REPOSITORY)
    deadline = time.monotonic() + 60
    while (not path.exists() or path.stat().st_size < 20_000) and time.monotonic() < deadline:
        time.sleep(0.005)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    journal = SearchJournal(path)
    found = [log["number"] for log in journal.read_logs(0)]
    journal.close()
    assert len(found) > 100
    assert found == list(range(len(found)))
