"""`report.html`: a run as one page that needs no network. Its data is JSON, drawn by the scripts in this folder."""

import html
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from nas.base import atomic_write_text
from nas.report.figures import front_figure
from nas.report.page.data import report_data
from nas.runs import RunDirectory, design_points, plain_vits, results_of, retrained_networks

SCRIPTS = ("draw.js", "charts.js", "retrained.js", "parallel.js", "layers.js", "trust.js", "page.js")


def write_report(run: RunDirectory, random: RunDirectory | None = None) -> list[Path]:
    """Write `report.html` and the figures of a run, finished or not; returns the files, the page first.

    `random` is a random search on the same weights and images, drawn on the page up to the same number of trials. A
    RunError tells where nothing was measured yet, the run is damaged, or `random` cannot be compared with it.
    """
    found = results_of(run)
    atomic_write_text(run.report_path, report_html(report_data(found, random)))
    designs, networks = design_points(found), retrained_networks(found)
    drawn = designs, networks, plain_vits(found)
    return [run.report_path, *front_figure(found.front, found.others, run.figure_path(), *drawn)]


def report_html(data: Mapping[str, Any]) -> str:
    """The page around its data (`report_data`); no text of a run can end the script that holds it."""
    folder = resources.files("nas.report.page")
    files = {name: (folder / name).read_text(encoding="utf-8") for name in ("page.css", *SCRIPTS)}
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    parts = {
        "title": html.escape(f"{data['run']}: Pareto front"),
        "style": files["page.css"],
        "script": "\n".join(files[name] for name in SCRIPTS),
        "data": text,
    }
    page = (folder / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)  # one pass: data is not searched
