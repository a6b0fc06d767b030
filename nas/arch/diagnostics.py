"""Numbers that say whether an operator does anything: what they are, and when one is dead.

`nas.model.instruments` measures them while a supernet is trained; they are columns of its log.
"""

from collections.abc import Mapping
from dataclasses import dataclass

JUDGED_FROM = 0.5  # of a training: static maps are learned in its first half, corrections grow from zero
FEW_STEPS = 1000  # of a training: what has not come to life by then may still do so


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """A number of an operator, mean over the layers that were looked at."""

    name: str  # the column
    words: str  # what it is, with its unit
    operator: str  # whose, as a message begins with it
    low: float = float("-inf")  # from this on the operator lives
    high: float = float("inf")  # up to this
    dead: str = ""  # what is said of the operator where it does not
    advice: str = ""  # what to do then


DIAGNOSTICS = (
    Diagnostic(
        name="glad_entropy",
        words="entropy of what a query of `glad` gathers from, over that of all tokens alike, 0 to 1",
        operator="glad",
        high=0.95,
        dead="is dead: its queries gather from all tokens alike",
        advice="leave glad out of `reducer`: pool gives the same for less",
    ),
    Diagnostic(
        name="glad_share",
        words="norm of the gathered part over that of the average",
        operator="glad",
        low=0.03,
        dead="is dead: it adds nothing to the average",
        advice="leave glad out of `reducer`: pool gives the same for less",
    ),
    Diagnostic(
        name="conv_pool_change",
        words="norm of what `conv_pool` changes over that of the average",
        operator="conv_pool",
        low=0.02,
        dead="is dead: its convolution does nothing",
        advice="leave conv_pool out of `reducer`: pool gives the same for less",
    ),
    Diagnostic(
        name="static_entropy",
        words="entropy of a row of a static map over that of all tokens alike, 0 to 1",
        operator="static attention",
        high=0.997,
        dead="is dead: its maps average all tokens",
        advice="train for longer, or from --init; or leave static out of `attention`",
    ),
    Diagnostic(
        name="static_kl",
        words="divergence of static maps from the dynamic maps of the same layer and input, "
        "KL(dynamic || static), nats",
        operator="static attention",
    ),
    Diagnostic(
        name="linear_scale",
        words="norm of the output of linear attention over that of dynamic attention at the same input",
        operator="linear attention",
        low=0.4,
        high=2.5,
        dead="is out of scale: not as loud as the attention that it stands for",
        advice="leave linear out of `attention`, or start from --init",
    ),
    Diagnostic(
        name="copy_change",
        words="how far the gain of a copied head is from 1; copies save, whether they change or not",
        operator="hallucination",
    ),
    Diagnostic(
        name="mix_change",
        words="norm of how the logits of a mixed head differ from its parent's, over that of the parent's, both less "
        "the mean of their row",
        operator="hallucination",
        low=0.02,
        dead="is dead: mixed heads are copies of their parents",
        advice="leave mix and mix_conv out of `hallucination`: copy gives the same for less",
    ),
    Diagnostic(
        name="shared_cosine",
        words="cosine of shared maps and those that the layer's own queries and keys would give, -1 to 1",
        operator="shared attention",
    ),
    Diagnostic(
        name="ffn_scale",
        words="norm of the output of a factorised feed-forward over that of the whole one at the same input",
        operator="factorised feed-forward",
        low=0.1,
        dead="is dead: its factors give next to nothing",
        advice="leave what is below 1 out of `ffn_rank`",
    ),
)
"""In the order of the columns."""


def dead_operators(last: Mapping[str, float], progress: float, num_steps: float = float("inf")) -> list[str]:
    """A line for every operator that is dead, by the last numbers of a training of so many steps; none before half."""
    lines: dict[str, str] = {}
    for diagnostic in DIAGNOSTICS if progress >= JUDGED_FROM else ():
        value = last.get(diagnostic.name)
        if value is not None and not diagnostic.low <= value <= diagnostic.high:
            number = f"{diagnostic.name} {value:.4g}, {_lives(diagnostic)} where it lives"
            advice = f"train longer: {num_steps:,.0f} steps are few" if num_steps < FEW_STEPS else diagnostic.advice
            line = f"{diagnostic.operator} {diagnostic.dead} ({number}); {advice}"
            lines.setdefault(diagnostic.operator, line)
    return list(lines.values())


def _lives(diagnostic: Diagnostic) -> str:
    low, high = f"{diagnostic.low:.3g}", f"{diagnostic.high:.3g}"
    if diagnostic.low == float("-inf"):
        return f"at most {high}"
    return f"at least {low}" if diagnostic.high == float("inf") else f"{low} to {high}"
