"""`cache`: the decoded images that runs share, listed and swept."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.report import Table


def cached(*, sweep: bool) -> list[dict[str, Any]]:
    """What there is, the last used first, or, with `sweep`, what was deleted."""
    from nas.data import stored_files, sweep_store

    return [
        {
            "images": file.images,
            "from": file.name,
            "side": file.side,
            "bytes": file.num_bytes,
            "used": datetime.fromtimestamp(file.used_at).astimezone().isoformat(timespec="seconds"),
            "in_use": file.in_use,
        }
        for file in (sweep_store() if sweep else stored_files())
    ]


def cache_table(values: Mapping[str, Any]) -> "Table":
    """The same for people."""
    from nas.report import Column, Table

    rows: Sequence[Mapping[str, Any]] = values["files"]
    total = sum(row["bytes"] for row in rows)
    return Table(
        title=f"{values['folder']}: {'deleted ' if values['swept'] else ''}{total / 1e6:,.0f} MB",
        columns=[Column("images"), Column("from", wraps=True), Column("side"), Column("MB"), Column("last used")],
        rows=[
            (
                f"{row['images']:,}",
                row["from"],
                f"{row['side']} px",
                f"{row['bytes'] / 1e6:,.1f}",
                "now" if row["in_use"] else row["used"][:16].replace("T", " "),
            )
            for row in rows
        ],
    )
