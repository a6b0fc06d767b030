"""A network as files that other programs load, checked against the table."""

# fmt: off
from nas.bundle.bundle import ARCHITECTURE, BundleOptions, ExportReport
from nas.bundle.export import check_options, check_place, export_bundle

__all__ = ["ARCHITECTURE", "BundleOptions", "ExportReport", "check_options", "check_place", "export_bundle"]
