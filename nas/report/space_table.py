"""What `check` says of a search space: its size, the range of its costs, its extremes, its seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from nas.arch import Architecture, bytes_to_run, cost, draw_layers, peak_activation_bytes
from nas.base import command_line, plural, unit_of
from nas.report.table import Column, Table, columns_of
from nas.space import SearchSpace, known_designs, notes, plain_shapes


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
        "memory_is_exact": space.knows_memory,
        "layers": [min(space.depth), max(space.depth)],
        "num_classes": space.backbone.num_classes,
        "num_classes_from_data": space.num_classes_from_data,
        "constraints": space.constraints.by_key(),
        **{name: _costs(architecture, space) for name, architecture in extremes.items()},
        "seeds": {name: _costs(architecture, space) for name, architecture in seeds.items()},
        "plain": [_costs(a, space) for a in plain_shapes(space)] if "plain" in space.seeds else [],
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


def space_table(summary: Mapping[str, Any]) -> Table:
    """`space_summary` as a table for people."""
    # Of a space that is too large to look for it, what is known from its extremes.
    memory = (
        _span(summary["memory"])
        if summary["memory_is_exact"]
        else f"less than {_span(summary['memory']).replace(' to ', ' to more than ')}"
    )
    assumed = " (assumed; taken from the data in a run)" if summary["num_classes_from_data"] else ""
    rows = [
        ("architectures", f"{summary['architectures']:,} (before hard constraints)"),
        ("genes", f"{summary['parameters_of_the_search']} with more than one choice"),
        ("layers", " to ".join(str(n) for n in dict.fromkeys(summary["layers"]))),
        ("compute", f"{_span(summary['macs'])}MACs per image (1 MAC = 2 FLOPs)"),
        ("parameters", _span(summary["params"]).rstrip()),
        ("memory", f"{memory}B for one image (fp32, parameters and activations)"),
        ("classes", f"{summary['num_classes']}{assumed}"),
    ]
    rows += [(name, f"{b:,.10g}") for name, b in summary["constraints"].items() if b is not None]
    for name in ("smallest", "largest"):
        params, activations = (summary[name][key] / 1e6 for key in ("params", "peak_activation_bytes"))
        words = f"{params:.3g} M parameters, activations at most {activations:.3g} MB (batch 1, fp32)"
        rows.append((name, f"{_layers(summary[name])}  {words}"))
    for name, seed in summary["seeds"].items():
        words = f"{seed['macs'] / 1e6:.3g} M MACs, {seed['params'] / 1e6:.3g} M parameters"
        rows.append((f"seed {name}", f"{_layers(seed)}  {words}"))
    if plain := [costs["macs"] for costs in summary["plain"]]:
        factor, prefix = unit_of(plain)
        ends = " to ".join(dict.fromkeys(f"{macs / factor:.3g}" for macs in (plain[0], plain[-1])))
        rows.append(("seeds plain", f"{plural(len(plain), 'plain ViT')} of {ends} {prefix}MACs"))
    rows += [("note", text) for text in summary["notes"]]
    return Table(title=f"{summary['name']}: a legal search space", rows=rows, box="HEAVY_HEAD")


def spaces_table(found: Mapping[str, Any]) -> Table:
    """The spaces that come with the program, a row each."""
    return Table(
        title="Search spaces that come with the program",
        columns=[
            *columns_of({"name": "", "pixels": "{}", "networks": "{:.1e}", "MACs": "{}"}),
            Column("parameters", "{}", spare=1),
            Column("weights of timm", wraps=True),
        ],
        rows=[
            (
                *(space[name] for name in ("name", "image_size", "architectures")),
                *(_span(space[name]) for name in ("macs", "params")),
                space["weights"],
            )
            for space in found["spaces"]
        ],
        caption=[f"`{command_line('check', 'NAME')}` says more of one, `{command_line('run', 'NAME')}` searches it"],
    )


def _span(ends: Sequence[float]) -> str:
    """From the least to the most, with one unit."""
    factor, prefix = unit_of(ends)
    return f"{ends[0] / factor:.3g} to {ends[1] / factor:.3g} {prefix}"


def _layers(costs: Mapping[str, Any]) -> str:
    return draw_layers(Architecture.from_dict(costs["architecture"]))
