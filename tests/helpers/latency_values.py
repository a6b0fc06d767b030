"""Any latencies on up to four targets, and any bounds on them."""

from dataclasses import replace

import factories
from hypothesis import strategies as st

from nas.runs.trial import Timed

NAMES = ("latency_ms", "latency_ms_2", "latency_ms_3", "latency_ms_4")
milliseconds = st.one_of(st.floats(0.5, 9.5), st.integers(1, 9).map(float))


@st.composite
def latencies(draw):
    """On some of the targets, with an interval or without."""
    found = {}
    for name in NAMES:
        if draw(st.booleans()):
            ms = draw(milliseconds)
            interval = (0.9 * ms, ms + draw(st.sampled_from([0.0, 0.5, 1.0])))
            found[name] = Timed(ms=ms, interval=draw(st.sampled_from([None, interval])))
    return found


bounds = st.dictionaries(st.sampled_from(NAMES), milliseconds, max_size=3)


def of(latency):
    return replace(factories.measurement(), latency=latency)
