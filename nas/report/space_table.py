"""What `check` says of a search space: its size, the range of its costs, its extremes, its seeds."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nas.arch import Architecture, bytes_to_run, cost, draw_layers, peak_activation_bytes
from nas.base import unit_of
from nas.space import SearchSpace, known_designs, notes

if TYPE_CHECKING:
    from rich.table import Table


def space_summary(space: SearchSpace) -> dict[str, Any]:
    """JSON of `check --format json`: sizes and extremes; MACs per image, bytes at batch 1 in fp32."""
    extremes = {"smallest": space.smallest(), "largest": space.largest()}
    seeds = known_designs(space, space.seeds)
    return {
        "schema_version": 1,
        "name": space.name,
        "digest": space.digest,
        "architectures": space.size(),
        "parameters_of_the_search": sum(len(values) > 1 for values in space.choices().values()),
        "macs": list(space.macs_range()),
        "params": list(space.params_range()),
        "memory": list(space.memory_range()),
        "layers": [min(space.depth), max(space.depth)],
        "num_classes": space.backbone.num_classes,
        "num_classes_from_data": space.num_classes_from_data,
        "constraints": asdict(space.constraints),
        **{name: _costs(architecture, space) for name, architecture in extremes.items()},
        "seeds": {name: _costs(architecture, space) for name, architecture in seeds.items()},
        "notes": notes(space),
    }


def _costs(architecture: Architecture, space: SearchSpace) -> dict[str, Any]:
    macs = cost.macs(architecture, space.backbone)
    return {
        "digest": architecture.digest,
        "macs": macs,
        "flops": 2 * macs,
        "params": cost.params(architecture, space.backbone),
        "peak_activation_bytes": peak_activation_bytes(architecture, space.backbone),
        "memory": bytes_to_run(architecture, space.backbone),
        "architecture": architecture.to_dict(),
    }


def space_table(space: SearchSpace) -> "Table":
    """`space_summary` as a table for people."""
    from rich.table import Table

    summary = space_summary(space)
    table = Table(title=f"{summary['name']}: a legal search space", show_header=False)

    def span(values: list[int], unit: str) -> str:
        factor, prefix = unit_of(values)
        return f"{values[0] / factor:.3g} to {values[1] / factor:.3g} {prefix}{unit}"

    assumed = " (assumed; taken from the data in a run)" if summary["num_classes_from_data"] else ""
    table.add_row("architectures", f"{summary['architectures']:,} (before hard constraints)")
    table.add_row("genes", f"{summary['parameters_of_the_search']} with more than one choice")
    table.add_row("layers", " to ".join(str(n) for n in dict.fromkeys(summary["layers"])))
    table.add_row("compute", span(summary["macs"], "MACs per image (1 MAC = 2 FLOPs)"))
    table.add_row("parameters", span(summary["params"], "").rstrip())
    table.add_row("memory", span(summary["memory"], "B for one image (fp32, parameters and activations)"))
    table.add_row("classes", f"{summary['num_classes']}{assumed}")
    for name, bound in summary["constraints"].items():
        if bound is not None:
            table.add_row(name, f"{bound:,.10g}")
    for name in ("smallest", "largest"):
        megabytes = summary[name]["peak_activation_bytes"] / 1e6
        table.add_row(
            name,
            f"{_drawn(summary[name])}  {summary[name]['params'] / 1e6:.3g} M parameters, "
            f"activations at most {megabytes:.3g} MB (batch 1, fp32)",
        )
    for name, seed in summary["seeds"].items():
        macs, params = seed["macs"] / 1e6, seed["params"] / 1e6
        table.add_row(f"seed {name}", f"{_drawn(seed)}  {macs:.3g} M MACs, {params:.3g} M parameters")
    for text in summary["notes"]:
        table.add_row("note", text)
    return table


def _drawn(costs: dict[str, Any]) -> str:
    return draw_layers(Architecture.from_dict(costs["architecture"]))
