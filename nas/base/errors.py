"""Every error a user can cause: a message that states the rule and the value, and a hint that says what to do."""

import copyreg
from collections.abc import Sequence

from nas.base.words import plural


class NasError(Exception):
    """Base of all errors shown to a user as `error: message` and `hint: ...`, without a traceback; exit code 2.

    Args:
        message: The rule that was broken and the value that broke it. May span lines.
        hint: What to do next, one sentence.
    """

    exit_code = 2
    """Of the command line: 2 is misuse, nothing was changed; 1 is that it ran, but the answer is bad."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the hint when the error crosses a process boundary, whatever arguments its class takes."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


def one_line(text: str) -> str:
    """A text without line breaks and not too long."""
    return " ".join(text.split())[:500]


def problem_words(error: Exception) -> str:
    """What is wrong with a file, in words, of the error that reading it raised: of a `KeyError`, what is missing."""
    return (
        f"{error.args[0]} is missing" if isinstance(error, KeyError) else one_line(str(error)) or type(error).__name__
    )


class InputFileError(NasError):
    """A file the user wrote (YAML, JSON) is wrong; lists every problem found, one line each.

    Such as `line 8: layers.atention: unknown key; did you mean "attention"?`.
    """

    def __init__(self, path: object, problems: Sequence[str], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        count = plural(len(self.problems), "problem")
        super().__init__(f"{path}: {count}\n" + "\n".join(f"  {p}" for p in self.problems), hint=hint)


class SearchSpaceError(InputFileError):
    """A search space is contradictory or empty."""


class ArchitectureError(NasError):
    """An architecture breaks a rule of METHODS (C1 to C15), of its backbone or of its search space."""


class ConfigError(NasError):
    """A flag or a configuration value is wrong."""


class DataError(NasError):
    """The images cannot be used: missing, unreadable, empty classes, wrong channels."""


class RunError(NasError):
    """A run folder is missing, of another schema, locked by another process, or holds another run."""


class CheckpointError(NasError):
    """Saved weights are damaged or belong to another search space."""


class ExportError(NasError):
    """What was written differs from what was searched."""

    exit_code = 1


class HubError(NasError):
    """The hub cannot be reached, or refuses; nothing, or not all, was put there."""

    exit_code = 1


class NoResultError(NasError):
    """A search ended without an architecture to show."""

    exit_code = 1


class EvaluationError(NasError):
    """This candidate cannot be measured (out of memory, NaN, crash): its trial fails, the search goes on."""


class OutOfMemoryError(EvaluationError):
    """Memory ran out measuring this candidate: worth another attempt in smaller batches."""


class TrainingError(NasError):
    """Training cannot go on: the loss is not finite. The last good checkpoint is kept."""
