"""The fast version of benchmarks/chaos.py: one search, everything killed once."""

import pytest
from chaos import KINDS, endure, outline, undisturbed

from nas.runs.trial import TrialState


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_whose_parts_are_killed_ends_as_one_that_was_left_alone(tmp_path):
    struck = endure(tmp_path / "struck", 50, 0, KINDS)
    calm = undisturbed(tmp_path / "calm", 50, 0)
    assert len(struck.kills) >= 3
    assert outline(struck.trials) == outline(calm)
    assert struck.repeated == 0
    states = {trial.state for trial in struck.trials}
    assert states >= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED}
    reasons = {trial.error for trial in struck.trials if trial.error}
    assert any("quarantined" in reason or "took longer" in reason for reason in reasons)
