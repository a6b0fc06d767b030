"""A part of `benchmarks/fuzz.py` that takes seconds: malformed input ends in a line, and nothing is written."""

import importlib
import random
from collections import Counter

import fuzz
import fuzz_inputs
import PIL
import pytest

LOOKS = ("check", "status", "front", "show", "compare")  # commands that need no torch


@pytest.fixture(autouse=True, scope="module")
def _imported():
    """Once, and not in every child."""
    for name in ("nas.cli", "nas.report", "nas.runs", "nas.space"):
        importlib.import_module(name)


@pytest.mark.parametrize(("kind", "count"), [("space", 80), ("document", 50), ("settings", 25), ("run", 25)])
def test_malformed_input_is_refused_in_a_line(tmp_path, kind, count):
    outcomes, number = Counter(), 10_000  # not those of the table
    while outcomes.total() < count:
        folder = tmp_path / f"{number}"
        folder.mkdir()
        case = fuzz_inputs.make(kind, random.Random(f"0 {kind} {number}"), folder)
        if case.arguments[0] in LOOKS:
            tried = fuzz.attempt(kind, number, 0, fresh := tmp_path / f"again-{number}")
            assert tried.outcome not in fuzz.BAD, f"{kind} {number}: {tried.command}\n{tried.said}"
            outcomes[tried.outcome] += 1
            assert fresh.is_dir()
        number += 1
    assert outcomes["refused"] > 0


@pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) < 13, reason="Pillow 10 cannot write all of the odd pictures"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of formats that Pillow is about to drop
@pytest.mark.parametrize(("kind", "count"), [("images", 8), ("parquet", 8)])
def test_odd_data_are_read_or_refused_in_a_line(tmp_path, kind, count):
    importlib.import_module("nas.jobs")
    outcomes = Counter()
    for number in range(10_000, 10_000 + count):
        (folder := tmp_path / f"{number}").mkdir()
        tried = fuzz.attempt(kind, number, 0, folder)
        assert tried.outcome not in fuzz.BAD, f"{kind} {number}: {tried.command}\n{tried.said}"
        outcomes[tried.outcome] += 1
    assert outcomes["refused"] > count / 4


def test_what_is_looked_for_is_seen(tmp_path, monkeypatch):
    """A command that raises, hangs, dies or writes."""
    conducts = {
        "traceback": "raise ValueError",
        "hang": "while True: pass",
        "crash": "os.kill(os.getpid(), 10)",
        "wrote": "open('new', 'w').close(); print('error: x', file=sys.stderr, flush=True); os._exit(2)",
        "refused": "print('error: x', file=sys.stderr, flush=True); os._exit(2)",
        "ok": "os._exit(0)",
    }

    class Conduct(fuzz_inputs.Case):
        def run(self) -> int:
            exec(conducts[self.arguments[0]], {"os": __import__("os"), "sys": __import__("sys")})
            return 0

    monkeypatch.setattr(fuzz, "CPU_S", 1)
    for outcome in conducts:
        monkeypatch.setattr(fuzz, "make", lambda *_, name=outcome: Conduct(arguments=(name,)))
        (tmp_path / outcome).mkdir()
        assert fuzz.attempt("x", 0, 0, tmp_path / outcome).outcome == outcome


def test_inputs_of_a_seed_are_the_same(tmp_path):
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        case = fuzz_inputs.make("space", random.Random("0 space 7"), tmp_path / name)
        made.append((case, (tmp_path / name / "space.yaml").read_bytes()))
    assert made[0] == made[1]


def test_every_kind_gets_its_share():
    shares = fuzz.counts(list(fuzz_inputs.KINDS), 3000)
    assert sum(shares.values()) == 3000
    assert min(shares.values()) >= 30
