"""Results for people: an architecture layer by layer, how a run stands, what an export wrote. Looks only."""

from typing import TYPE_CHECKING, Any

from nas.arch import Architecture, AttentionKind, Backbone, cost
from nas.runs import FrontPoint

if TYPE_CHECKING:
    from rich.table import Table
from nas.arch import FEWER_TOKENS, GLYPHS, LEGEND, layer_kind
from nas.base import unit_column

BAR_WIDTH = 6


def show_rows(shown: FrontPoint | Architecture, backbone: Backbone) -> list[dict[str, Any]]:
    """One architecture from input to output, JSON values: a row a layer, and one an operation outside them.

    `macs_share` is of the whole network; `latency_share` is null where the point's details lack it.
    """
    architecture = shown if isinstance(shown, Architecture) else shown.architecture
    details = {} if isinstance(shown, Architecture) else shown.details
    shares = details.get("layer_latency_share", [None] * architecture.depth)
    operations = cost.breakdown(architecture, backbone)
    total = sum(operation.macs for operation in operations)
    rows: list[dict[str, Any]] = []
    for operation in operations:
        if operation.layer is None:
            rows.append({"part": operation.operation, "layer": None, "macs": 0, "params": 0})
        elif rows[-1]["layer"] != operation.layer:
            i, choice = operation.layer, architecture.layers[operation.layer]
            rows.append(
                {
                    "part": f"layer {i}",
                    "layer": i,
                    "tokens": choice.num_tokens,
                    "reducer": choice.reducer.value if choice.reducer else None,
                    "attention": _operator_words(architecture, i),
                    "heads": choice.num_heads,
                    "mlp_ratio": choice.mlp_ratio,
                    "hidden": architecture.hidden_dim(i),
                    "rank": architecture.rank(i),
                    "macs": 0,
                    "params": 0,
                    "latency_share": shares[i],
                }
            )
        rows[-1]["macs"] += operation.macs
        rows[-1]["params"] += operation.params
    for row in rows:
        row["macs_share"] = row["macs"] / total
    return rows


def show_table(shown: FrontPoint | Architecture, backbone: Backbone, *, bars: bool = True) -> "Table":
    """`show_rows` as a table; without bars it fits 80 columns as far as its words do."""
    from rich import box
    from rich.table import Table

    architecture = shown if isinstance(shown, Architecture) else shown.architecture
    rows = show_rows(shown, backbone)
    macs_header, macs = unit_column(
        "MACs", [row["macs"] for row in rows] + [sum(row["macs"] for row in rows)]
    )
    params_header, params = unit_column(
        "params", [row["params"] for row in rows] + [sum(r["params"] for r in rows)]
    )
    title = f"{architecture.digest}: {architecture.depth} layers, {architecture.embed_dim} channels"
    table = Table(title=title, box=box.SIMPLE_HEAD, caption=LEGEND, caption_justify="left", show_footer=True)
    if not bars:
        table.padding = (0, 0)
    table.add_column("", "total", no_wrap=True)
    for header in ("tokens", "attention"):
        table.add_column(header, no_wrap=True)
    numbers = [("heads", ""), ("mlp", ""), ("hidden", ""), (macs_header, macs[-1]), ("share", "")]
    for header, footer in [*numbers, (params_header, params[-1]), ("latency", "")]:
        table.add_column(header, footer, justify="right", no_wrap=True)
    for row, macs_cell, params_cell in zip(rows, macs, params, strict=False):
        inside = [""] * 5
        if row["layer"] is not None:
            arrow = f" {FEWER_TOKENS} {row['reducer']}" if row["reducer"] else ""
            glyph = GLYPHS[layer_kind(architecture, row["layer"])]
            hidden = str(row["hidden"]) + (f" (rank {row['rank']})" if row["rank"] else "")
            sizes = [str(row["heads"]), f"{row['mlp_ratio']:g}", hidden]
            inside = [f"{row['tokens']}{arrow}", f"{glyph} {row['attention']}", *sizes]
        shares = [_share(row.get(name), has_bar=bars) for name in ("macs_share", "latency_share")]
        table.add_row(row["part"], *inside, macs_cell, shares[0], params_cell, shares[1])
    return table


def _operator_words(architecture: Architecture, layer: int) -> str:
    choice = architecture.layers[layer]
    words = choice.attention.value
    if choice.attention is AttentionKind.SHARED:
        kinds = [earlier.attention for earlier in architecture.layers[:layer]]
        words += f" from {max(i for i, kind in enumerate(kinds) if kind is AttentionKind.DYNAMIC)}"
    if choice.hallucination is not None:
        words += f", {choice.num_hallucinated} of {choice.num_heads} {choice.hallucination.value}"
    return words


def _bar(share: float, width: int = BAR_WIDTH) -> str:
    """A share in [0, 1] as a bar of eighths of a character."""
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def _share(share: float | None, *, has_bar: bool) -> str:
    if share is None:
        return "-"
    percent = f"{100 * share:4.1f} %"
    return f"{_bar(share):{BAR_WIDTH}} {percent}" if has_bar else percent
