"""Everything that measures architectures can be called alike."""

import inspect

import pytest
from replay_evaluator import ReplayEvaluator

from nas.evaluation.evaluator import SubnetEvaluator
from nas.evaluation.protocol import Evaluator
from nas.jobs.alone import StandAloneEvaluator


@pytest.mark.parametrize("kind", [SubnetEvaluator, StandAloneEvaluator, ReplayEvaluator])
def test_an_evaluator_takes_what_the_protocol_says(kind):
    asked, has = (inspect.signature(found.evaluate).parameters for found in (Evaluator, kind))
    assert [(p.name, p.kind, p.default) for p in has.values()] == [(p.name, p.kind, p.default) for p in asked.values()]
