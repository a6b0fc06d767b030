"""What there is to ask of a run, in a process of its own, as a user has it."""

import json

import pytest
from small_runs import python

LOOK = """
import json, sys
import nas

run = nas.load("r")
front, html, axes = run.front, run._repr_html_(), len(run.plot().axes)
looked = "torch" in sys.modules
own = run.space.smallest()
told = run.evaluate("knee"), run.evaluate(own)
run.export(own, to="bundle", formats=["timm"])

import timm, torch
model, images = timm.create_model("local-dir:bundle", pretrained=True).eval(), torch.randn(2, 3, 8, 8)
print(json.dumps({
    "first": repr(run), "html": html, "axes": axes, "imported torch": looked,
    "knee": [front[front.knee].top1.iloc[0], told[0].top1],
    "own": [json.load(open("bundle/metrics.json"))["top1"], told[1].top1],
    "is the supernet's": torch.equal(model(images), run.supernet.extract(own)(images)),
}))
"""


def test_a_run_is_tables_a_figure_measurements_and_networks(folder):
    done = python(LOOK, folder)
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["first"] == "nas.load('r')"
    assert not found["imported torch"]
    assert found["axes"] >= 2
    assert "<table" in found["html"]
    assert "hypervolume" in found["html"]
    assert found["knee"][0] == found["knee"][1]  # as a trial is measured
    assert found["own"][0] == found["own"][1]
    assert found["is the supernet's"]


def test_what_is_no_run_is_said(tmp_path):
    import nas
    from nas.base.errors import ConfigError, RunError

    with pytest.raises(RunError, match="does not exist"):
        nas.load(tmp_path / "r")
    with pytest.raises(ConfigError, match="path: 3 is no path"):
        nas.load(3)
