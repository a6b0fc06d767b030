"""Hard bounds: what exceeds them and by how much, and their keys in files."""

import pytest
from factories import backbone, plain, varied

from nas.arch import cost, memory
from nas.base.metrics import LATENCIES
from nas.space.constraints import FIRST_BOUNDS, UNITS, USED, Constraints


def test_what_is_used_is_what_arithmetic_says():
    for architecture in (plain(), varied()):
        assert USED["max_macs"](architecture, backbone()) == cost.macs(architecture, backbone())
        assert USED["max_params"](architecture, backbone()) == cost.params(architecture, backbone())
        assert USED["max_memory"](architecture, backbone()) == memory.bytes_to_run(architecture, backbone())


@pytest.mark.parametrize("key", UNITS)
def test_a_bound_is_kept_up_to_itself_and_exceeded_by_shares_of_it(key):
    amount = USED[key](plain(), backbone())
    assert Constraints(**{key: amount}).excess(plain(), backbone()) == 0
    assert Constraints(**{key: amount / 2}).excess(plain(), backbone()) == pytest.approx(1)


def test_excesses_add_up():
    halves = {key: USED[key](plain(), backbone()) / 2 for key in UNITS}
    assert Constraints(**halves).excess(plain(), backbone()) == pytest.approx(len(UNITS))
    assert Constraints().excess(plain(), backbone()) == 0


def test_bounds_are_read_back_from_their_keys():
    bounds = Constraints(max_macs=1e6, max_latency={"latency_ms": 3.0, "latency_ms_3": 4.0})
    assert Constraints.from_keys(bounds.by_key()) == bounds
    assert set(bounds.by_key()) == {*UNITS, *(f"max_{name}" for name in LATENCIES)}


def test_keys_of_later_versions_are_written_only_where_they_are_set():
    assert tuple(sorted(Constraints().to_dict())) == tuple(sorted(FIRST_BOUNDS))
    assert "max_memory" in Constraints(max_memory=1.0).to_dict()
    assert "max_latency_ms_2" in Constraints(max_latency={"latency_ms_2": 1.0}).to_dict()


def test_words_name_the_bounds_of_arithmetic():
    text = Constraints(max_macs=2e6, max_params=1e3, max_latency={"latency_ms": 3.0}).text()
    assert text == "at most 2,000,000 MACs and at most 1,000 parameters"
