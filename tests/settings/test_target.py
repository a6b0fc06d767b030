"""Targets are read as they are written, and everything that is wrong with one is told at once."""

import pytest

from nas.base.errors import ConfigError
from nas.settings import target
from nas.settings.target import Target, parse_target, target_problems


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("torch-cpu", Target(runtime="torch-cpu")),
        ("onnxruntime-cpu:batch=1,threads=2,precision=fp32", Target(runtime="onnxruntime-cpu", batch=1, threads=2)),
        ("onnxruntime-cpu:precision=int8,batch=1", Target(runtime="onnxruntime-cpu", batch=1, precision="int8")),
        (" torch-cpu-packed: precision = bf16 ", Target(runtime="torch-cpu-packed", precision="bf16")),
    ],
)
def test_a_target_is_read_as_written(text, expected):
    assert parse_target(text) == expected
    assert parse_target(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("torch-gpu", ["unknown runtime 'torch-gpu'", "did you mean"]),
        ("torch-cpu:batch=0", ["batch must be a whole number from 1 to 1000000, got '0'"]),
        ("torch-cpu:bach=1", ["'bach=1' is not one of batch=N"]),
        ("torch-cpu:batch=1,batch=2", ["batch is given twice"]),
        ("onnxruntime-cpu:precision=bf16", ["onnxruntime-cpu computes in fp32 and int8, got precision=bf16"]),
        ("openvino-cpu:precision=int8", ["openvino-cpu computes in fp32 and bf16, got precision=int8"]),
        ("onnx:batch=x,size=3,precision=int4", ["unknown runtime", "batch must", "'size=3'", "precision must"]),
        ("", ["unknown runtime ''"]),
    ],
)
def test_all_that_is_wrong_with_a_target_is_told_at_once(text, words):
    with pytest.raises(ConfigError) as caught:
        parse_target(text)
    assert [word for word in words if word not in caught.value.message] == []
    assert "onnxruntime-cpu:batch=1" in caught.value.hint


def test_all_that_is_wrong_with_several_targets_is_told_at_once():
    problems = "; ".join(
        target_problems(["torch-cpu", "profile:a.json", "torch-xpu", "torch-cpu:batch=-1", "torch-cpu"])
    )
    for words in ("5 targets, there can be 4", "torch-xpu", "batch=-1", "given twice"):
        assert words in problems
    assert target_problems(["profile:a.json", "torch-cpu"]) == []


def test_an_unknown_runtime_is_answered_with_those_of_this_machine_and_what_others_lack(monkeypatch):
    monkeypatch.setattr(target, "find_spec", lambda package: None if package == "openvino" else object())
    monkeypatch.setattr(target, "_sees_cuda", lambda: False)
    with pytest.raises(ConfigError) as caught:
        parse_target("help")
    here, _, others = caught.value.message.partition("not here: ")
    assert here.endswith("on this machine: torch-cpu, torch-cpu-packed, torch-cpu-compiled, onnxruntime-cpu; ")
    assert "openvino-cpu (pip install openvino), torch-cuda (no CUDA device), torch-cuda-graph (no" in others
    assert "onnxruntime-cpu computes in fp32 and int8" in others
    monkeypatch.setattr(target, "_sees_cuda", lambda: True)
    with pytest.raises(ConfigError, match=r"onnxruntime-cpu, torch-cuda, torch-cuda-graph; not here: openvino"):
        parse_target("help")
