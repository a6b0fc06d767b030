import io
import json

import pytest
import torch
from rich.console import Console

from nas.arch import cost
from nas.cli import doctor
from nas.cli.doctor import diagnose, diagnosis_table


@pytest.fixture(scope="module")
def findings():
    return diagnose()


def found(findings, name):
    return next(check for check in findings["checks"] if check["check"] == name)


def test_the_self_tests_pass_here(findings):
    for name in (
        "torch and torchvision fit together",
        "FLOP counter equals arithmetic",
        "supernet equals extracted subnet",
        "device",
        "bf16 in hardware",
        "int8",
        "packages",
    ):
        assert found(findings, name)["passed"], found(findings, name)


def test_it_is_healthy_exactly_where_every_check_passes(findings):
    assert findings["healthy"] == all(check["passed"] for check in findings["checks"])


def test_versions_are_those_installed(findings):
    assert findings["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(doctor.PACKAGES) < set(findings["versions"])


def test_wrong_arithmetic_is_found_and_said(monkeypatch):
    monkeypatch.setattr(cost, "macs", lambda *_: 1)
    findings = diagnose()
    check = found(findings, "FLOP counter equals arithmetic")
    assert not check["passed"]
    assert "arithmetic says 2" in check["found"]
    assert not findings["healthy"]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    findings = diagnose()
    assert found(findings, "packages") == {"check": "packages", "passed": False, "found": "no-such-package missing"}
    assert findings["versions"]["no-such-package"] is None
    assert "WRONG" in drawn(findings)
    assert "something is wrong" in drawn(findings)


def drawn(findings):
    text = io.StringIO()
    Console(file=text, width=160).print(diagnosis_table(findings))
    return text.getvalue()


def test_the_table_has_every_check_and_version(findings):
    for check in findings["checks"]:
        assert check["check"] in drawn(findings)
    for name in findings["versions"]:
        assert name in drawn(findings)


def test_findings_are_json(findings):
    assert json.loads(json.dumps(findings)) == findings
