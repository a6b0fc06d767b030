"""A small network, and a bundle of it."""

from pathlib import Path

import pytest
from bundles import export, small_subnet

from nas.model.families.vit import Subnet


@pytest.fixture
def small() -> Subnet:
    return small_subnet()


@pytest.fixture
def two_formats(small: Subnet, tmp_path: Path) -> Path:
    export(small, tmp_path / "b", formats=("timm", "pt2"))
    return tmp_path / "b"
