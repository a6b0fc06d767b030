"""When an operator is called dead."""

import re
from pathlib import Path

import pytest

from nas.arch.diagnostics import DIAGNOSTICS, dead_operators

ROOT = Path(__file__).resolve().parents[2]
LIVING = {
    "glad_entropy": 0.6,
    "glad_share": 0.2,
    "conv_pool_change": 0.1,
    "static_entropy": 0.8,
    "static_kl": 0.4,
    "linear_scale": 1.2,
    "copy_change": 0.0,
    "mix_change": 0.1,
    "shared_cosine": 0.9,
    "ffn_scale": 0.9,
}


def test_nothing_is_said_of_operators_that_live():
    assert LIVING.keys() == {diagnostic.name for diagnostic in DIAGNOSTICS}
    assert dead_operators(LIVING, 1.0) == []
    assert dead_operators({}, 1.0) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "glad_entropy",
            0.9997,
            "glad is dead: its queries gather from all tokens alike (glad_entropy 0.9997, at most 0.",
        ),
        ("glad_share", 0.01, "glad is dead: it adds nothing to the average (glad_share 0.01, at least 0."),
        (
            "static_entropy",
            0.9995,
            "static attention is dead: its maps average all tokens (static_entropy 0.9995, at most",
        ),
        ("linear_scale", 5.6, "linear attention is out of scale: "),
        ("linear_scale", 0.05, "linear attention is out of scale: "),
        ("mix_change", 0.0, "hallucination is dead: "),
        ("ffn_scale", 0.001, "factorised feed-forward is dead: "),
        ("conv_pool_change", 0.0, "conv_pool is dead: "),
    ],
)
def test_a_dead_operator_is_said_in_one_line_with_its_number_and_what_to_do(name, value, words):
    (line,) = dead_operators({**LIVING, name: value}, 1.0)
    assert line.startswith(words)
    assert f"{name} {value:.4g}" in line
    assert "leave " in line


def test_nobody_is_judged_before_half_of_the_training():
    dead = {**LIVING, "glad_share": 0.0}
    assert [len(dead_operators(dead, progress)) for progress in (0.0, 0.49, 0.5, 1.0)] == [0, 0, 1, 1]


def test_after_few_steps_a_longer_training_is_advised():
    dead = {**LIVING, "linear_scale": 5.0}
    assert dead_operators(dead, 1.0, 40)[0].endswith("; train longer: 40 steps are few")
    assert "leave linear out" in dead_operators(dead, 1.0, 2_000)[0]


def test_an_operator_that_is_dead_twice_over_has_one_line():
    dead = {**LIVING, "glad_share": 0.0, "glad_entropy": 1.0, "mix_change": 0.0}
    lines = dead_operators(dead, 1.0)
    assert [line.partition(" ")[0] for line in lines] == ["glad", "hallucination"]


def test_every_number_is_explained_in_the_readme():
    explained = set(re.findall(r"`([\w.]+)`", (ROOT / "results" / "README.md").read_text()))
    assert {diagnostic.name for diagnostic in DIAGNOSTICS} <= explained
