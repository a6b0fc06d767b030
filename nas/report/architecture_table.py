"""An architecture layer by layer: JSON values, and a table."""

from typing import Any

from nas.arch import FEWER_TOKENS, LEGEND, Architecture, Backbone, channels_of, cost, look_of
from nas.base import plural, unit_column
from nas.report.table import Cell, Column, Table, columns_of
from nas.runs import FrontPoint

BAR_WIDTH = 6


def show_rows(point: FrontPoint, backbone: Backbone) -> list[dict[str, Any]]:
    """One architecture from input to output, JSON values: a row a layer, and one an operation outside them.

    `macs_share` is of the whole network; `latency_share` is null where the point's details lack it.
    """
    architecture = point.architecture
    shares = point.details.get("layer_latency_share", [None] * architecture.depth)
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
                    "reducer": choice.reducer,
                    "embed_dim": architecture.widths[i],
                    "attention": _operator_words(architecture, i),
                    "heads": choice.num_heads,
                    "mlp_ratio": choice.mlp_ratio,
                    "hidden": architecture.hidden_dim(i),
                    "rank": architecture.rank(i),
                    "ffn_conv": choice.ffn_conv,
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


def show_table(point: FrontPoint, backbone: Backbone, *, bars: bool = True) -> Table:
    """`show_rows` as a table; without bars it is narrower."""
    architecture, rows = point.architecture, show_rows(point, backbone)
    macs, params = (
        unit_column(label, [*values, sum(values)])
        for label, values in (("MACs", [r["macs"] for r in rows]), ("params", [r["params"] for r in rows]))
    )
    stem = "" if architecture.stem == "patch" else f", {architecture.stem} stem"
    cells = []
    for row, macs_cell, params_cell in zip(rows, macs[1], params[1], strict=False):
        inside: list[Cell] = [""] * 5
        if row["layer"] is not None:
            arrow = f" {FEWER_TOKENS} {row['reducer']}" if row["reducer"] else ""
            if architecture.layers[row["layer"]].embed_dim:
                arrow += f" x {row['embed_dim']}"
            glyph = look_of(architecture.layers[row["layer"]]).glyph
            hidden = str(row["hidden"]) + " conv" * row["ffn_conv"]
            hidden += f" (rank {row['rank']})" if row["rank"] else ""
            words = f"{row['tokens']}{arrow}", f"{glyph} {row['attention']}"
            inside = [*words, row["heads"], row["mlp_ratio"], hidden]
        macs_share, latency = (_share(row.get(name), bars) for name in ("macs_share", "latency_share"))
        cells.append([row["part"], *inside, macs_cell, macs_share, params_cell, latency])
    return Table(
        title=f"{architecture.digest}: {plural(architecture.depth, 'layer')}, {channels_of(architecture)}{stem}",
        columns=[
            Column(footer="total"),
            *columns_of({"tokens": "", "attention": ""}, wraps=True),
            Column("heads", "{:g}", spare=1),
            Column("mlp", "{:g}", spare=4),
            Column("hidden", "{:g}"),
            Column(macs[0], "{}", footer=macs[1][-1]),
            Column("share", "{}", spare=3),
            Column(params[0], "{}", footer=params[1][-1], spare=2),
            Column("latency", "{}"),
        ],
        rows=cells,
        caption=[LEGEND],
    )


def _operator_words(architecture: Architecture, layer: int) -> str:
    choice = architecture.layers[layer]
    words = choice.attention
    if choice.kind.shares:
        kinds = [earlier.kind for earlier in architecture.layers[:layer]]
        words += f" from {max(i for i, kind in enumerate(kinds) if kind.provides)}"
    if choice.hallucination is not None:
        words += f", {choice.num_hallucinated} of {choice.num_heads} {choice.hallucination}"
    return words


def _share(share: float | None, has_bar: bool) -> str:
    """A share in [0, 1] as percent, behind a bar of eighths of a character."""
    if share is None:
        return "-"
    eighths = round(share * BAR_WIDTH * 8)
    bar = "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]
    return f"{bar:{BAR_WIDTH}} " * has_bar + f"{100 * share:4.1f} %"
