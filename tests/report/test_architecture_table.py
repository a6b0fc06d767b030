"""An architecture layer by layer: words, units and shares are those of the values."""

from dataclasses import replace

import factories
import pytest
from report_runs import row_with, text_of

from nas.arch import cost
from nas.report.architecture_table import show_rows, show_table
from nas.runs.point import FrontPoint


def test_show_adds_up_to_the_network_and_names_every_operator():
    architecture, backbone = factories.varied(), factories.backbone()
    rows = show_rows(FrontPoint(architecture, factories.measurement()), backbone)
    assert sum(row["macs"] for row in rows) == cost.macs(architecture, backbone)
    assert sum(row["params"] for row in rows) == cost.params(architecture, backbone)
    assert sum(row["macs_share"] for row in rows) == pytest.approx(1)
    layers = [row for row in rows if row["layer"] is not None]
    assert [row["attention"] for row in layers] == [
        "dynamic",
        "shared from 0",
        "dynamic, 1 of 2 copy",
        "static",
        "dynamic, 1 of 3 mix_conv",
        "shared from 4, 1 of 3 mix",
        "linear",
        "dynamic",
        "linear",
    ]
    assert [(row["tokens"], row["reducer"]) for row in layers[2:4]] == [(16, None), (4, "conv_pool")]
    assert [row["hidden"] for row in layers] == [48, 48, 72, *[48] * 6]
    assert [row["rank"] for row in layers] == [None] * 5 + [12, None, 6, None]
    assert {row["latency_share"] for row in layers} == {None}
    assert [row["part"] for row in rows if row["layer"] is None] == ["patch_embed", "pos_embed", "norm", "head"]


def test_show_prints_the_latency_shares_of_the_point_and_the_totals():
    shares = {"layer_latency_share": [0.25, 0.125, 0.25, 0.25, 0.0625, 0.03, 0.0125, 0.01, 0.01]}
    shown = FrontPoint(factories.varied(), factories.measurement(), shares)
    text = text_of(show_table(shown, factories.backbone()), width=160)
    assert row_with(text, "layer 1").split()[-2:] == ["12.5", "%"]
    assert row_with(text, "▾ conv_pool").split()[:6] == ["layer", "3", "4", "▾", "conv_pool", "■"]
    macs = cost.macs(shown.architecture, factories.backbone())
    assert row_with(text, "total").split()[1] == f"{macs / 1e3:.2f}"
    assert "kMACs" in text


def test_a_conv_stem_is_a_part_and_in_the_title():
    shown = FrontPoint(replace(factories.plain(), stem="conv"), factories.measurement())
    assert show_rows(shown, factories.backbone())[0]["part"] == "conv_stem"
    assert "24 channels, conv stem" in text_of(show_table(shown, factories.backbone()), width=160)


def test_no_number_unit_or_header_is_cut_at_80_columns():
    shares = {"layer_latency_share": [0.25, 0.125, 0.25, 0.25, 0.0625, 0.03, 0.0125, 0.01, 0.01]}
    shown = FrontPoint(factories.varied(), factories.measurement(), shares)
    text = text_of(show_table(shown, factories.backbone(), bars=False), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for header in ("tokens", "attention", "hidden", "kMACs", "latency"):
        assert header in text
    for layer, share in enumerate(shares["layer_latency_share"]):
        assert row_with(text, f"layer {layer}").rstrip().endswith(f" {100 * share:.1f} %")
    plain = FrontPoint(factories.plain(), factories.measurement())
    assert "no room" not in text_of(show_table(plain, factories.backbone(), bars=False), width=80)
