"""Errors carry a message and a hint to the user, also from other processes."""

import inspect
import pickle  # noqa: TID251 - what a process boundary does

import pytest

from nas.base import errors
from nas.base.errors import InputFileError, NasError, one_line

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, NasError)]
BAD_ANSWER = {"ExportError", "HubError", "NoResultError"}


def make(kind: type[NasError]) -> NasError:
    if issubclass(kind, InputFileError):
        return kind("a.yaml", ["line 1: wrong", "line 2: wrong, too"], hint="mend it")
    return kind("it is wrong", hint="mend it")


@pytest.mark.parametrize("kind", KINDS)
def test_message_hint_and_kind_survive_another_process(kind):
    error = make(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.message, again.hint, str(again)) == (error.message, "mend it", error.message)


@pytest.mark.parametrize("kind", KINDS)
def test_misuse_ends_with_2_and_a_bad_answer_with_1(kind):
    assert make(kind).exit_code == (1 if kind.__name__ in BAD_ANSWER else 2)


def test_all_problems_of_a_file_are_counted_and_listed():
    error = InputFileError("a.yaml", ["line 1: wrong", "line 2: wrong, too"])
    assert error.message == "a.yaml: 2 problems\n  line 1: wrong\n  line 2: wrong, too"
    assert InputFileError("a.yaml", ["line 1: wrong"]).message.startswith("a.yaml: 1 problem\n")


def test_one_line_has_no_breaks_and_an_end():
    assert one_line(" a\n  b\tc ") == "a b c"
    assert len(one_line("long " * 1000)) == 500
