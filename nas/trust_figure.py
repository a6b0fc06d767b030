"""The figure of `trust`: inherited against stand-alone top-1."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.report import unit_of
from nas.run_directory import atomic_write_bytes


def trust_figure(found: Mapping[str, Any], path: Path) -> Path:
    """Draw each architecture as a PNG, coloured by its MACs; bars reach from the worst seed to the best.

    Args:
        found: What `trust.json` holds.
        path: File to write.

    Returns:
        `path`.
    """
    from matplotlib.figure import Figure

    rows = found["architectures"]
    alone = [row["stand_alone_top1"] for row in rows]
    inherited = [row["inherited_top1"] for row in rows]
    by_seed = [row["stand_alone_top1_by_seed"] for row in rows]
    spread = [
        [mean - min(values) for mean, values in zip(alone, by_seed, strict=True)],
        [max(values) - mean for mean, values in zip(alone, by_seed, strict=True)],
    ]
    factor, prefix = unit_of([row["macs"] for row in rows])
    figure = Figure(figsize=(6.4, 5.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.errorbar(alone, inherited, xerr=spread, fmt="none", ecolor="0.6", elinewidth=1, zorder=1)
    dots = axes.scatter(
        alone,
        inherited,
        s=46,
        c=[row["macs"] / factor for row in rows],
        cmap="viridis",  # readable by colour-blind people and in grey
        edgecolors="black",
        linewidths=0.6,
        zorder=3,
    )
    figure.colorbar(dots, ax=axes, label=f"{prefix}MACs / image")
    axes.axline((alone[0], alone[0]), slope=1, color="0.5", lw=1, ls=":", zorder=0, label="equal")
    axes.set_xlim(*_limits([value for values in by_seed for value in values]))
    axes.set_ylim(*_limits(inherited))
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    axes.grid(alpha=0.25, linewidth=0.6)
    seeds = found["num_seeds"]
    axes.set_xlabel(f"top-1 trained alone (%), mean of {seeds} seed{'s' * (seeds != 1)}")
    axes.set_ylabel("top-1 inherited from the supernet (%)")
    axes.set_title(_title(found), fontsize=11)
    figure.supxlabel(
        f"{len(rows)} architectures, {found['epochs']} epochs each; {found['num_images']} images of the "
        f"{found['split']} split, {found['precision']}, supernet {found['supernet']}",
        fontsize=8,
    )
    content = io.BytesIO()
    figure.savefig(content, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, content.getvalue())
    return path


def _limits(values: list[float]) -> tuple[float, float]:
    margin = 0.06 * (max(values) - min(values)) or 1.0
    return min(values) - margin, max(values) + margin


def _title(found: Mapping[str, Any]) -> str:
    if found["kendall_tau"] is None:
        return f"{found['run']}: no order"
    low, high = found["kendall_tau_ci"]
    return f"{found['run']}: Kendall tau {found['kendall_tau']:.2f} [{low:.2f}, {high:.2f}]"
