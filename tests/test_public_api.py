"""`import nas` is light, gives every public name, and its docstring lists the files there are."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import nas

ROOT = Path(__file__).parents[1]


def run_python(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_light() -> None:
    heavy = {"torch", "timm", "numpy", "ray", "optuna", "pandas", "pydantic", "matplotlib", "onnx", "yaml"}
    loaded = run_python("import sys, nas; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert heavy.isdisjoint(loaded)


def test_looking_at_spaces_costs_and_fronts_needs_no_torch() -> None:
    code = """
        import sys, nas
        nas.Architecture, nas.Backbone, nas.LayerChoice, nas.SearchSpace, nas.ParetoFront, nas.RunDirectory
        nas.cost.macs, nas.__version__
        print(*{"torch", "timm", "ray", "optuna"} & set(sys.modules))
    """
    assert run_python(code) == ""


def test_timm_knows_the_model_when_its_own_module_comes_first() -> None:
    assert run_python("import nas.model, timm; print(timm.is_model('nas_vit'))") == "True"


def test_every_public_name_is_what_its_module_defines() -> None:
    from nas.arch import architecture, cost
    from nas.model import supernet
    from nas.model.families import vit as subnet
    from nas.runs import directory as run_directory
    from nas.runs import front as pareto
    from nas.space import space

    assert nas.cost is cost
    for module, names in (
        (architecture, ("Architecture", "Backbone", "LayerChoice")),
        (space, ("SearchSpace",)),
        (pareto, ("ParetoFront",)),
        (run_directory, ("RunDirectory",)),
        (subnet, ("Subnet",)),
        (supernet, ("Supernet",)),
    ):
        for name in names:
            assert getattr(nas, name) is getattr(module, name)
            assert name in nas.__all__
    assert set(nas.__all__) <= set(dir(nas))
    assert re.match(r"\d", nas.__version__)


def test_errors_are_public_and_import_nothing_heavy() -> None:
    code = """
        import sys, nas
        for name in ("ConfigError", "DataError", "NoResultError", "RunError", "SearchSpaceError"):
            assert issubclass(getattr(nas, name), nas.NasError), name
        print(*{"torch", "optuna", "numpy"} & set(sys.modules))
    """
    assert run_python(code) == ""
    listed = (ROOT / "docs" / "api.md").read_text()
    for name in nas.__all__:
        value = getattr(nas, name)
        if isinstance(value, type) and issubclass(value, nas.NasError):
            assert f"::: nas.base.errors.{name}\n" in listed


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'nas' has no attribute 'Supernett'"):
        nas.Supernett  # noqa: B018 - the access is the test
