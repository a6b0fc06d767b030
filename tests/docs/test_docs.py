"""What the pages of docs/ say holds, as far as that can be told without running their commands (readme_commands.py)."""

import ast
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image
from readme_commands import FENCED, NOT_RUN, PAGES, README, ROOT, Step, commands, run, steps
from ruamel.yaml import YAML
from small_runs import command
from typer.main import get_command

from nas.base.errors import DataError, SearchSpaceError
from nas.cli.app import app
from nas.data.loader import load_images
from nas.settings.config import DataConfig
from nas.space.reasons import notes
from nas.space.space import parse_space

DOCS = ROOT / "docs"
EVERY_PAGE = [README, *(f"docs/{path.name}" for path in sorted(DOCS.glob("*.md")))]
SPACES = (DOCS / "spaces.md").read_text()
TUTORIAL = (DOCS / "tutorial.md").read_text()


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def rows_of(page: str, header: str) -> list[list[str]]:
    """The code spans of a table's rows, by the header of the table."""
    rows = page.partition(f"\n{header}\n")[2].split("\n\n")[0].splitlines()[1:]
    assert rows, header
    return [[cell.strip(" `") for cell in row.strip("|").split(" | ")] for row in rows]


# --- all pages ----------------------------------------------------------------------------------------------


def test_every_page_with_commands_is_run():
    pages = {
        page for page in EVERY_PAGE if any(found[0] in ("bash", "python") for found in FENCED.findall(text_of(page)))
    }
    assert pages == {README, *PAGES}


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_every_command_and_flag_exists_also_where_it_is_not_run(page):
    program = get_command(app)
    for line in commands(text_of(page).replace(NOT_RUN, "#")):
        words = shlex.split(line)
        if words[:1] != ["nas"]:
            continue
        found, rest = program, words[1:]
        while rest and hasattr(found, "commands"):
            name = rest[0] if rest[0] in found.commands else "measure"  # `latency RUN`
            assert name in found.commands, line
            found, rest = found.commands[name], rest[rest[0] == name :]
        known = {option for part in (program, found) for parameter in part.params for option in parameter.opts}
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert given <= known | {"--help"}, line


def test_no_message_names_a_page_that_an_installed_wheel_lacks():
    found = []
    for path in sorted((ROOT / "nas").rglob("*.py")):
        tree = ast.parse(path.read_text())
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if hasattr(node, "body")
            and isinstance(node.body, list)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        found += [
            f"{path.name}:{text.lineno}"
            for text in texts
            if id(text) not in docstrings and re.search(r"docs/\w|\w/README\.md", text.value)
        ]
    assert found == []


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_commands_stand_in_blocks_that_are_run(page):
    assert not re.findall(r"^    (?:python|pip|ray) .*$", text_of(page), flags=re.MULTILINE)
    blocks = re.findall(r"^```([^\n]*)\n(.*?)^```", text_of(page), flags=re.MULTILINE | re.DOTALL)
    assert not [block for language, block in blocks if not language and "python " in block]


def prose(text: str) -> str:
    """A page without its code."""
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_every_link_leads_somewhere(page):
    for target, _, anchor in re.findall(r"\]\(([^)#:\s]*)(#([\w-]+))?\)", prose(text_of(page))):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text()), (target, anchor)


def test_the_index_names_every_page():
    listed = re.findall(r"^\| \[(.+?\.md)\]\(\1\) \|", (DOCS / "README.md").read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in DOCS.glob("*.md") if path.name != "README.md")


def test_the_tour_shows_every_command():
    shown = [shlex.split(line)[1:] for line in commands(text_of("docs/tour.md").replace(NOT_RUN, "#"))]

    def names(group, path=()):
        for name, found in group.commands.items():
            yield from names(found, (*path, name)) if hasattr(found, "commands") else [(*path, name)]

    paths = {path[:-1] if path[-1] == "measure" else path for path in names(get_command(app))}
    assert [path for path in sorted(paths) if not any(tuple(words[: len(path)]) == path for words in shown)] == []


# --- what runs them -----------------------------------------------------------------------------------------

PAGE = """
```yaml made/a.yaml
x: 1
```
Words.
```bash
pip install -e . && true   # no installing here
cat made/a.yaml \\
  made/a.yaml
# not run
false
```
```python
import sys
sys.exit(3)
```
```text
true
```
```bash
false   # exit 0 or 1: as it comes
false   # exit 1
```
"""


def test_a_page_is_read_as_it_stands():
    assert list(steps(PAGE)) == [
        Step("file", "x: 1\n", "made/a.yaml"),
        Step("bash", "true"),
        Step("bash", "cat made/a.yaml    made/a.yaml"),
        Step("python", "import sys\nsys.exit(3)\n"),
        Step("bash", "false", codes=(0, 1)),
        Step("bash", "false", codes=(1,)),
    ]


def test_what_fails_is_told(tmp_path, capsys):
    assert [run(step, tmp_path, "page") for step in steps(PAGE)] == [True, True, True, False, True, True]
    assert "exit 3  import sys ..." in capsys.readouterr().out
    assert not run(Step("bash", "cat made/b.yaml"), tmp_path, "page")
    assert "b.yaml: No such file" in capsys.readouterr().out
    assert not run(Step("bash", "true", codes=(1,)), tmp_path, "page")


# --- spaces.md ----------------------------------------------------------------------------------------------

FILES = {file: block for _, file, block in FENCED.findall(SPACES) if file}


def with_line(text: str, line: str) -> str:
    """A file with one line of YAML in place of the top-level keys that it has."""
    own = set(YAML(typ="safe").load(line))
    groups = re.split(r"^(?=\w)", text, flags=re.MULTILINE)
    return "".join(group for group in groups if group.partition(":")[0] not in own) + line + "\n"


@pytest.mark.parametrize(("line", "message"), rows_of(SPACES, "| you write | it says |"))
def test_every_mistake_gets_the_message_on_the_page(line, message):
    with pytest.raises(SearchSpaceError) as caught:
        parse_space(with_line(FILES["ten.yaml"], line), "ten.yaml")
    assert [re.sub(r"^line \d+: ", "", problem) for problem in caught.value.problems] == [message]


@pytest.mark.parametrize(("line", "note"), rows_of(SPACES, "| you write | the note |"))
def test_every_choice_in_vain_gets_the_note_on_the_page(line, note):
    assert note in notes(parse_space(with_line(FILES["ten.yaml"], line), "ten.yaml"))


@pytest.mark.parametrize("file", ["ten.yaml", "overrides.yaml"])
def test_check_prints_what_the_page_shows(file, tmp_path):
    path = tmp_path / file
    path.write_text(FILES[file])
    printed = {
        " ".join(line.strip("│ ").replace("│", "").split())
        for line in command("check", path, "--format=table").stdout.splitlines()
    }
    (shown,) = re.findall(rf"check {file}\n```\n\n```text\n(.*?)```", SPACES, flags=re.DOTALL)
    assert {" ".join(line.split()) for line in shown.splitlines()} <= printed


def test_the_first_file_is_one_network():
    assert parse_space(FILES["one.yaml"], "one.yaml").size() == 1


# --- tutorial.md and its script -----------------------------------------------------------------------------


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = os.urandom(12 * 12 * 3)
    Image.frombytes("RGB", (12, 12), pixels).save(path)


@pytest.fixture
def patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split, count in {"train": 100, "test": 40}.items():
        for name in ("rings", "rows"):
            for i in range(count):
                picture(Path("patterns", split, name, f"{i}.png"))


def damage(case: str) -> None:
    if "only the test set" in case:
        picture(Path("patterns/test/star/0.png"))
    elif "two folders" in case:
        picture(Path("patterns/eval/rings/0.png"))
    elif "damaged" in case:
        Path("patterns/train/rings/0.png").write_bytes(b"nothing")
    elif case.endswith(".zip"):
        Path("patterns.zip").touch()


@pytest.mark.usefixtures("patterns")
@pytest.mark.parametrize(("case", "message"), rows_of(TUTORIAL, "| you do | it says |"))
def test_every_wrong_folder_gets_the_message_on_the_page(case, message):
    damage(case)
    spec = case.removeprefix("--data ") if case.startswith("--data ") else "folder:patterns"
    with pytest.raises(DataError) as caught:
        load_images(DataConfig(spec=spec), 8, 0)
    assert " ".join(caught.value.message.split()) == message
    assert caught.value.hint


def test_the_script_that_scores_a_bundle_needs_numpy_pillow_and_onnxruntime_alone():
    tree = ast.parse((ROOT / "examples" / "score_onnx.py").read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - sys.stdlib_module_names == {"numpy", "onnxruntime", "PIL"}
