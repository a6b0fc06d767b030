"""A network as files that other programs load, checked against the table."""

# fmt: off
from nas.bundle.bundle import DEFAULT_FORMATS, ExportReport
from nas.bundle.export import export_bundle

__all__ = ["DEFAULT_FORMATS", "ExportReport", "export_bundle"]
