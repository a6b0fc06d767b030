"""YAML that people write: read with line numbers, by the rules of YAML 1.2."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from nas.base import InputFileError
from nas.settings.document import Document, KeyPath, Problem, dotted, in_order, shown, suggestion

MAX_NODES = 100_000  # aliases can unfold a page of YAML into more than memory holds
COMMAND_LINE = "--set"


class _Loader(yaml.SafeLoader):
    """Words mean what YAML 1.2 says: `1e-3` is a number, `off` and `2024-01-01` are text, `010` is ten."""


class _Dumper(yaml.SafeDumper):
    """Puts quotes around text that `_Loader` would take for something else."""


_TAG = "tag:yaml.org,2002:"
_WORDS = {  # pattern, and the characters it can begin with
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+(_[0-9]+)*", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
for _kind in (_Loader, _Dumper):
    _kind.yaml_implicit_resolvers = {}
    for _name, (_pattern, _begins) in _WORDS.items():
        _kind.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _begins)


def _read_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _read_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(re.sub(r"\.(?=[iInN])", "", loader.construct_scalar(node)))


_Loader.add_constructor(_TAG + "int", _read_int)
_Loader.add_constructor(_TAG + "float", _read_float)


def read_yaml(path: str | Path, error: type[InputFileError] = InputFileError) -> Document:
    """Read a YAML file whose top level is a group of keys.

    Raises:
        InputFileError: The file cannot be read, is not YAML, or repeats a key.
    """
    return parse_yaml(read_text(path, error), str(path), error)


def read_text(path: str | Path, error: type[InputFileError] = InputFileError) -> str:
    """The text of a file.

    Raises:
        InputFileError: It is missing, unreadable or not UTF-8.
    """
    path = Path(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        text = f"there is no such file{suggestion(path.name, sorted(siblings))}"
        raise error(path, [text], hint="give the path of a file that exists") from None
    except UnicodeDecodeError as problem:
        text = f"it is not UTF-8 text (byte {problem.start})"
        raise error(path, [text], hint="give a text file, such as YAML") from problem
    except OSError as problem:
        text = f"it cannot be read: {problem.strerror or problem}"
        raise error(path, [text], hint="give a file that can be read") from problem


def parse_yaml(text: str, source: str, error: type[InputFileError] = InputFileError) -> Document:
    """Read YAML text whose top level is a group of keys. Empty text is an empty group.

    Raises:
        InputFileError: It is not YAML, or repeats keys; lists them all.
    """
    document, problems = scan_yaml(text, source)
    if problems:
        raise error(source, in_order(problems))
    return document


def scan_yaml(text: str, source: str) -> tuple[Document, list[Problem]]:
    """What can be read of a YAML text, and what is wrong with it, for a caller that may find more."""
    document, problems = Document(source), []
    value, found = _scan_value(text, document.lines)
    problems += found
    if isinstance(value, dict):
        document.data.update(value)
    elif value is not None:
        problems.append(Problem(1, f"the top level must be lines of `key: value`, got {shown(value)}"))
    return document, problems


def _scan_value(text: str, lines: dict[KeyPath, int]) -> tuple[Any, list[Problem]]:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, []
        reader = _Reader(loader, lines)
        return reader.read(node, ()), reader.problems
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(part for part in (error.context, error.problem) if part)
        words += "; indent with spaces" if "'\\t'" in words else ""
        return None, [Problem(mark.line + 1 if mark else 0, f"not YAML: {words}")]
    except yaml.reader.ReaderError as error:
        return None, [Problem(text.count("\n", 0, error.position) + 1, f"not YAML: {error.reason}")]
    except RecursionError:
        return None, [Problem(1, "it is nested too deeply")]


class _Reader:
    """Turns YAML nodes into plain values itself: PyYAML forgets lines and keeps the last of equal keys."""

    def __init__(self, loader: _Loader, lines: dict[KeyPath, int]) -> None:
        self.loader = loader
        self.lines = lines
        self.problems: list[Problem] = []
        self._open: set[int] = set()
        self._read = 0

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        self._read += 1
        line = node.start_mark.line + 1
        if self._read > MAX_NODES or id(node) in self._open:
            raise yaml.MarkedYAMLError(problem="its aliases never end", problem_mark=node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            try:
                return self.loader.construct_object(node)
            except ValueError as error:
                self.problems.append(Problem(line, f"{dotted(path)}: {error}", path))
                return None
        self._open.add(id(node))
        value: Any
        if isinstance(node, yaml.SequenceNode):
            value = []
            for i, item in enumerate(node.value):
                self.lines[(*path, i)] = item.start_mark.line + 1
                value.append(self.read(item, (*path, i)))
        else:
            assert isinstance(node, yaml.MappingNode), "YAML has three kinds of nodes"
            value = self._read_group(node, path)
        self._open.remove(id(node))
        return value

    def _read_group(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(line, "a key must be one word", path))
                continue
            inner = (*path, key_node.value)
            if key_node.value in value:
                text = f"{dotted(inner)}: key is given twice, first in line {self.lines[inner]}"
                self.problems.append(Problem(line, text, inner))
                continue
            self.lines[inner] = line
            value[key_node.value] = self.read(value_node, inner)
        return value


def dump_yaml(values: dict[str, Any]) -> str:
    """Plain values as YAML text that `parse_yaml` reads back to the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def apply_settings(document: Document, settings: Sequence[str]) -> tuple[Document, list[Problem]]:
    """Put `section.key=value` settings of the command line on top of a document; values are YAML."""
    problems = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(re.fullmatch(r"\w+", part) for part in path):
            problems.append(Problem(0, f"{COMMAND_LINE} {setting}: must look like section.key=value"))
            continue
        value, found = _scan_value(text, {}) if text.strip() else ("", [])
        problems += [Problem(0, f"{COMMAND_LINE} {setting}: {problem.text}", path) for problem in found]
        if not found:
            try:
                document = document.with_value(path, value, COMMAND_LINE)
            except ValueError as error:
                problems.append(Problem(0, f"{COMMAND_LINE} {setting}: {error}", path))
    return document, problems
