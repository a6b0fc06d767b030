"""A network as files that other programs load, checked against the table."""

# fmt: off
from nas.bundle.bundle import (
    ARCHITECTURE, DEFAULT_FORMATS, INT8, MAX_INT8_LOSS, BundleOptions, ExportReport, Int8,
)
from nas.bundle.export import RETRAIN, check_options, check_place, export_bundle
from nas.bundle.opened import Opened, open_bundle
from nas.bundle.push import push_bundle

__all__ = [
    "ARCHITECTURE", "DEFAULT_FORMATS", "INT8", "MAX_INT8_LOSS", "RETRAIN", "BundleOptions", "ExportReport", "Int8",
    "Opened", "check_options", "check_place", "export_bundle", "open_bundle", "push_bundle",
]
