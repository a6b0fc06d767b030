"""The commands and flags that people and programs rely on, written out."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from small_runs import ROOT, command, python
from typer.main import get_command

import nas
from nas.cli.app import app, main

SHARED = {
    "--data", "--run", "--epochs", "--sampler", "--init", "--teacher", "--seed", "--device", "--precision", "--target",
    "--set", "--config", "--skip-bad-images",
}  # fmt: skip
BUDGET = {"--trials", "--minutes", "--workers", "--ray-address", "--storage"}
EVERYWHERE = {"--quiet", "--verbose", "--debug", "--version", "--install-completion", "--show-completion"}

COMMANDS = {
    "run": SHARED | BUDGET | {"--finalists", "--supernet-trials", "--tensorboard", "--dry-run", "--format"},
    "train": SHARED | {"--workers", "--ray-address", "--tensorboard", "--dry-run", "--format"},
    "search": BUDGET | {"--data", "--seeds", "--tensorboard", "--dry-run", "--format"},
    "init": {"--data", "--to", "--from-scratch", "--forecast", "--set", "--skip-bad-images", "--format"},
    "check": {"--init", "--set", "--format"},
    "spaces": {"--format"},
    "status": {"--watch", "--format"},
    "runs": {"--format"},
    "front": {"--max-latency-ms", "--max-macs", "--max-params", "--min-top1", "--sort", "--format"},
    "show": {"--format"},
    "compare": {"--format"},
    "report": {"--random", "--format"},
    "export": {"--pick", "--to", "--formats", "--opset", "--max-int8-loss", "--license", "--data", "--format"},
    "predict": {"--top", "--runtime", "--device", "--skip-bad-images", "--format"},
    "validate": {"--data", "--split", "--runtime", "--seed", "--device", "--set", "--skip-bad-images", "--format"},
    "push": {"--repo", "--private", "--dry-run", "--format"},
    "doctor": {"--format"},
    "cache": {"--sweep", "--format"},
    "latency": set(),
    "trust": {"--architectures", "--seeds", "--epochs", "--workers", "--data", "--format"},
    "finalists": {"--count", "--epochs", "--seeds", "--workers", "--data", "--format"},
    "retrain": {
        "--pick",
        "--from",
        "--seeds",
        "--epochs",
        "--baseline",
        "--teacher",
        "--set",
        "--workers",
        "--to",
        "--data",
        "--format",
    },
    "rank-layers": {"--init", "--data", "--images", "--seed", "--device", "--set", "--format"},
}


def long_flags(found):
    return {flag for parameter in found.params for flag in parameter.opts if flag.startswith("--")} - {"--help"}


def test_the_commands_are_these():
    assert set(get_command(app).commands) == set(COMMANDS)


def test_flags_of_every_command_are_those_before_it():
    assert long_flags(get_command(app)) == EVERYWHERE


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_these_flags_and_explains_each(name):
    found = get_command(app).commands[name]
    assert long_flags(found) == COMMANDS[name]
    assert found.help
    unexplained = [parameter.name for parameter in found.params if not parameter.help]
    assert unexplained == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_works_and_names_its_flags(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    done = command(name, "--help")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert done.code == 0
    assert [flag for flag in COMMANDS[name] if flag not in plain] == []


def every_command(group, path=()):
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from every_command(found, (*path, name))
        else:
            yield (*path, name), found


ALL = dict(every_command(get_command(app)))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_the_example_of_a_command_is_one_of_it(path):
    (example,) = re.findall(r"^Example: \[bold\]nas (.+)\[/bold\]$", ALL[path].epilog)
    words = shlex.split(example)
    command_of_it = path[:-1] if path[-1] == "measure" else path
    assert tuple(words[: len(command_of_it)]) == command_of_it
    ALL[path].make_context("nas", words[len(command_of_it) :])  # refuses what it does not take


def test_short_help_is_help():
    for words in ([], ["run"], ["latency"], ["latency", "pack"]):
        assert command(*words, "-h") == command(*words, "--help")


def test_the_options_of_a_run_stand_in_panels():
    panels = {p.name: p.rich_help_panel for p in get_command(app).commands["run"].params}
    assert panels.pop("space") is None
    assert {"Data", "Training", "Search", "Machine", "Output"} < set(panels.values())
    assert None not in panels.values()
    assert get_command(app).commands["check"].params[1].rich_help_panel is None  # declared once, for both


def test_a_shell_completes_commands_and_spaces(tmp_path):
    def completed(line):
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_NAS_COMPLETE": "complete_bash"}
        done = subprocess.run(
            [sys.executable, "-m", "nas"], env={**os.environ, "PYTHONPATH": str(ROOT), **asked}, cwd=tmp_path,
            capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.split()

    assert completed("nas fr") == ["front"]
    assert completed("nas run cif") == ["cifar_groups", "cifar_joint", "cifar_small"]


def test_help_and_version_import_nothing_heavy(tmp_path):
    done = python(
        "import sys\n"
        "from nas.cli import main\n"
        "import nas\n"
        f"codes = [main([name, '--help']) for name in {sorted(COMMANDS)!r}] + [main(['--help'])]\n"
        "codes.append(main(['--version']))\n"
        "heavy = {'torch', 'timm', 'ray', 'optuna', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "print(set(codes), sorted(heavy), file=sys.stderr)\n",
        tmp_path,
    )
    assert done.stderr.strip() == "{0} []"
    assert done.stdout.strip().splitlines()[-1] == nas.__version__


def test_the_front_door_is_the_same_program(tmp_path):
    front_door = str(ROOT / "search.py")
    done = python(
        "import runpy, sys\n"
        "sys.argv = ['search.py', '--version']\n"
        f"runpy.run_path({front_door!r}, run_name='__main__')\n",
        tmp_path,
    )
    assert done.code == 0
    assert done.stdout == command("--version").stdout


@pytest.mark.parametrize("words", [(), ("-q",)])
def test_nas_alone_says_what_it_can_do_and_begins_nothing(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone = command(*words)
    assert (alone.code, alone.stdout) == (0, command("--help").stdout)
    assert "whole job on scikit-learn's digits" in " ".join(alone.stdout.split())
    assert list(tmp_path.iterdir()) == []


def test_the_front_door_alone_is_the_main_job(tmp_path, capsys):
    done = python(
        "import runpy, sys, nas.__main__ as program\n"
        "sys.argv, program.main = ['search.py'], lambda alone: print(alone)\n"
        f"runpy.run_path({str(ROOT / 'search.py')!r}, run_name='__main__')\n",
        tmp_path,
    )
    assert done.stdout == "run\n"
    assert main([], alone="spaces") == 0
    assert "Search spaces that come with the program" in capsys.readouterr().out


INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background ignores it
import nas.__main__ as program

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "nas.cli.app":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv = ["nas", "--version"]
sys.exit(program.main())
"""


def test_ctrl_c_while_the_program_is_imported_is_quiet(tmp_path):
    done = python(INTERRUPTED, tmp_path)
    assert (done.code, done.stdout, done.stderr.strip()) == (130, "", "interrupted")


WITHOUT = """
import sys
from importlib import metadata

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())

def version(name):
    if name.replace("-", "_") in {absent!r}:
        raise metadata.PackageNotFoundError(name)
    return "1.0"

metadata.version = version
metadata.requires = lambda _: ["typer>=0.26", "rich>=13.9", "torch>=2", "openvino>=1; extra == 'openvino'"]
import nas.__main__ as program

sys.argv = ["nas", "--version"]
sys.exit(program.main())
"""


def test_without_what_it_needs_it_says_what_to_install(tmp_path):
    done = python(WITHOUT.format(absent={"typer", "rich", "openvino"}), tmp_path)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "error: typer cannot be imported, as nas is installed without all that it needs",
        "hint: pip install 'typer>=0.26' 'rich>=13.9'",
    ]


def test_a_module_that_is_missing_for_another_reason_is_a_bug_that_is_shown(tmp_path):
    done = python(WITHOUT.format(absent={"nas.cli.app"}), tmp_path)
    assert "ModuleNotFoundError: No module named 'nas.cli.app'" in done.stderr


def test_once_it_is_imported_ctrl_c_is_what_it_was(tmp_path):
    done = python(
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import nas.__main__ as program\n"
        "sys.argv = ['nas', '--version']\n"
        "code = program.main()\n"
        "print(code, signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n",
        tmp_path,
    )
    assert done.stdout.splitlines()[-1] == "0 True"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--lr", "3"], "hint: --set train.lr=VALUE"),
        (["--learning-rate=3"], "hint: --set train.lr=VALUE"),
        (["--batch-size=3"], "hint: --set train.batch_size=VALUE or --set evaluate.batch_size=VALUE"),
        (["--max-macs=3"], "hint: --set constraints.max_macs=VALUE"),
    ],
)
def test_an_option_that_is_a_key_leads_to_it(words, hint):
    done = command("run", "digits", *words)
    assert done.code == 2
    assert "No such option" in done.stderr
    assert done.stderr.splitlines()[-1] == hint


def test_an_option_that_is_nothing_leads_nowhere():
    assert "hint" not in command("run", "digits", "--foo=3").stderr
