"""One supernet trial: the subnets that judge it."""

from small_runs import tiny_space

from nas.jobs.several_trial import probe_set

# --- scores and shares ------------------------------------------------------------------------------------


def test_probes_are_the_same_in_every_trial_and_span_the_range_of_macs():
    space = tiny_space()
    probes = probe_set(space, 6, 0)
    assert probes == probe_set(tiny_space(), 6, 0)
    assert probes[0] == space.smallest()
    assert probes[-1] == space.largest()
    assert len(probes) == 6
    assert all(probe in space for probe in probes)
