"""YAML that people write: read with line numbers, by the rules of YAML 1.2."""

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from nas.base import InputFileError, read_bytes
from nas.settings.document import Document, KeyPath, Problem, dotted, in_order, shown, suggestion

MAX_CHARACTERS = 200_000  # which take up to 2 s; a space of a hundred layers has 20,000
MAX_BYTES = 4 * MAX_CHARACTERS
MAX_NODES = 100_000  # aliases can unfold a page of YAML into more than memory holds
COMMAND_LINE = "--set"
PLAIN = ("str", "int", "float", "bool", "null")
TAG = "tag:yaml.org,2002:"
DECIMAL = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")


def read_yaml(path: str | Path, error: type[InputFileError] = InputFileError) -> Document:
    """Read a YAML file whose top level is a group of keys; else raises an InputFileError with all problems."""
    document, problems = scan_yaml(read_text(path, error), str(path))
    if problems:
        raise error(path, in_order(problems))
    return document


def read_text(path: str | Path, error: type[InputFileError] = InputFileError) -> str:
    """The text of a file; raises `error`, an InputFileError, where it is missing, unreadable or not UTF-8."""
    path = Path(path)
    try:
        return read_bytes(path, MAX_BYTES).decode("utf-8-sig")
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


def scan_yaml(text: str, source: str) -> tuple[Document, list[Problem]]:
    """What can be read of a YAML text, and what is wrong with it, for a caller that may find more."""
    document, problems = Document(source), []
    value, found = _scan_value(text, document.lines)
    problems += found
    if isinstance(value, dict):
        document.data.update(value)
    elif value is not None:
        problems.append(Problem(1, f"the top level must be lines of `key: value`, got {shown(value)}"))
    return replace(document, is_read=isinstance(value, dict) or not problems), problems


def _scan_value(text: str, lines: dict[KeyPath, int]) -> tuple[Any, list[Problem]]:
    if len(text) > MAX_CHARACTERS:
        return None, [Problem(0, f"it has {len(text):,} characters, {MAX_CHARACTERS:,} are allowed")]
    yaml = _yaml()
    try:
        node = yaml.compose(text)
        if node is None:
            return None, []
        reader = _Reader(yaml, lines)
        return reader.read(node, ()), reader.problems
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(part for part in (error.context, error.problem) if part)
        words += "; indent with spaces" if "'\\t'" in words else ""
        return None, [Problem(mark.line + 1 if mark else 0, f"not YAML: {words}")]
    except ReaderError as error:
        return None, [Problem(text.count("\n", 0, error.position) + 1, f"not YAML: {error.reason}")]
    except RecursionError:
        return None, [Problem(1, "it is nested too deeply")]


def _yaml() -> Any:
    """A reader and writer for one text, of plain values; it writes groups and lists as lines, in their order."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    return yaml


class _Reader:
    """Turns YAML nodes into plain values itself: ruamel.yaml forgets lines, and tells of one repeated key only."""

    def __init__(self, yaml: Any, lines: dict[KeyPath, int]) -> None:
        self.yaml = yaml
        self.lines = lines
        self.problems: list[Problem] = []
        self._open: set[int] = set()
        self._read = 0

    def read(self, node: Node, path: KeyPath) -> Any:
        self._read += 1
        if self._read > MAX_NODES or id(node) in self._open:
            raise MarkedYAMLError(problem="its aliases never end", problem_mark=node.start_mark)
        if isinstance(node, ScalarNode):
            return self._read_scalar(node, path)
        self._open.add(id(node))
        value: Any
        if isinstance(node, SequenceNode):
            self._check_tag(node, path, "seq")
            value = []
            for i, item in enumerate(node.value):
                self.lines[(*path, i)] = item.start_mark.line + 1
                value.append(self.read(item, (*path, i)))
        else:
            assert isinstance(node, MappingNode), "YAML has three kinds of nodes"
            self._check_tag(node, path, "map")
            value = self._read_group(node, path)
        self._open.remove(id(node))
        return value

    def _check_tag(self, node: Node, path: KeyPath, plain: str) -> None:
        if str(node.tag).removeprefix(TAG) != plain:
            text = f"{dotted(path)}: the tag {shown(str(node.tag).removeprefix(TAG))} is not read; write a plain value"
            self.problems.append(Problem(node.start_mark.line + 1, text, path))

    def _read_scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        """Null, true, false or a decimal number; dates, `0x10` and the signs of YAML 1.1, `<<` and `=`, are text."""
        kind = str(node.tag).removeprefix(TAG)
        if kind in ("timestamp", "merge", "value") or (kind == "int" and not DECIMAL.fullmatch(node.value)):
            return node.value
        if kind not in PLAIN:
            self._check_tag(node, path, "str")
            return None
        try:
            return self.yaml.constructor.construct_object(node)
        except (ValueError, KeyError):
            text = f"{dotted(path)}: {shown(node.value)} cannot be read as {kind}"
            self.problems.append(Problem(node.start_mark.line + 1, text, path))
            return None

    def _read_group(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
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
    """Plain values as YAML text that `read_yaml` reads back to the same values."""
    text = io.StringIO()
    _yaml().dump(values, text)
    return text.getvalue()


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
