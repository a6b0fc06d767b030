"""What `check` says of a search space: its size, the range of its costs, its extremes."""

from typing import TYPE_CHECKING, Any

from nas import cost
from nas.memory import peak_activation_bytes
from nas.report import draw_layers, unit_of
from nas.space import SearchSpace
from nas.space_reasons import notes

if TYPE_CHECKING:
    from rich.table import Table


def space_summary(space: SearchSpace) -> dict[str, Any]:
    """JSON of `check --format json`: sizes and extremes; MACs per image, bytes at batch 1 in fp32."""
    extremes = {}
    for name, architecture in (("smallest", space.smallest()), ("largest", space.largest())):
        macs = cost.macs(architecture, space.backbone)
        extremes[name] = {
            "digest": architecture.digest,
            "macs": macs,
            "flops": 2 * macs,
            "params": cost.params(architecture, space.backbone),
            "peak_activation_bytes": peak_activation_bytes(architecture, space.backbone),
            "architecture": architecture.to_dict(),
        }
    return {
        "schema_version": 1,
        "name": space.name,
        "digest": space.digest,
        "architectures": space.size(),
        "parameters_of_the_search": sum(len(values) > 1 for values in space.choices().values()),
        "macs": list(space.macs_range()),
        "params": list(space.params_range()),
        "layers": [min(space.depth), max(space.depth)],
        "num_classes": space.backbone.num_classes,
        "num_classes_from_data": space.num_classes_from_data,
        "constraints": space.to_dict()["constraints"],
        **extremes,
        "notes": notes(space),
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
    table.add_row("classes", f"{summary['num_classes']}{assumed}")
    for name, bound in summary["constraints"].items():
        if bound is not None:
            table.add_row(name, f"{bound:,.10g}")
    for name, architecture in (("smallest", space.smallest()), ("largest", space.largest())):
        megabytes = summary[name]["peak_activation_bytes"] / 1e6
        table.add_row(
            name,
            f"{draw_layers(architecture)}  {summary[name]['params'] / 1e6:.3g} M parameters, "
            f"activations at most {megabytes:.3g} MB (batch 1, fp32)",
        )
    for text in summary["notes"]:
        table.add_row("note", text)
    return table
