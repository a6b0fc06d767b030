"""The model card says what was measured, in which unit, and where it comes from."""

from pathlib import Path

from bundles import CLASS_TOKEN, EVERY_OPERATOR, export, point_of, small_subnet, subnet_of
from ruamel.yaml import YAML

from nas.arch import cost
from nas.bundle.card import model_card


def test_the_model_card_states_numbers_units_and_origin(tmp_path: Path) -> None:
    export(subnet_of(EVERY_OPERATOR, CLASS_TOKEN), tmp_path / "my_vit")
    card = (tmp_path / "my_vit" / "README.md").read_text()
    front_matter = YAML(typ="safe").load(card.split("---")[1])
    assert front_matter["library_name"] == "timm"
    macs = cost.macs(EVERY_OPERATOR, CLASS_TOKEN)
    for text in (
        "# my_vit",
        EVERY_OPERATOR.digest,
        "| top-1 | 91.25 | 88 to 93.5 | % | search split, 144 images |",
        f"| MACs | {macs:,} |",
        f"| FLOPs | {2 * macs:,} | | FLOPs/image | 2 x MACs |",
        "| latency | 1.5 | 1.4 to 1.6 | ms/batch | torch-cpu, batch size 64, threads 1 |",
        "mean 0.4, 0.5, 0.6 and standard deviation 0.2, 0.25, 0.3",
        "python search.py run tiny.yaml",
        "optimistic",
    ):
        assert text in card, text


def test_conditions_read_from_a_record_are_told_as_those_just_measured(tmp_path: Path) -> None:
    small = small_subnet()
    measured = point_of(small)
    recorded = measured | {"conditions": dict(sorted(measured["conditions"].items()))}
    assert list(recorded["conditions"]) != list(measured["conditions"])
    for name, point in (("a", measured), ("b", recorded)):
        export(small, tmp_path / name / "vit", point=point)
    assert (tmp_path / "a/vit/README.md").read_text() == (tmp_path / "b/vit/README.md").read_text()


def test_a_test_result_is_on_the_card(tmp_path: Path) -> None:
    small = small_subnet()
    point = point_of(small) | {"test_top1": 88.5, "test_top1_ci": [85.0, 91.0], "test_images": 359}
    export(small, tmp_path / "b", point=point)
    card = (tmp_path / "b" / "README.md").read_text()
    assert "| top-1, test | 88.5 | 85 to 91 | % | test split, 359 images, fp32 |" in card


def test_the_plain_vit_of_the_space_and_chance_are_on_the_card(tmp_path: Path) -> None:
    small = small_subnet()
    plain = {"shape": "d16 L3 h2 m4", "accuracy": "top-1", "value": 90.5, "ci": [88.0, 93.0], "macs": 123456}
    plain["weights"] = "inherited weights"
    export(small, tmp_path / "b", point=point_of(small) | {"plain": plain, "chance": 23.1})
    card = (tmp_path / "b" / "README.md").read_text()
    assert "| top-1, plain ViT | 90.5 | 88 to 93 | % | search split, 144 images; the most accurate plain ViT" in card
    assert "d16 L3 h2 m4, inherited weights |" in card
    assert "| MACs, plain ViT | 123,456 | | MACs/image | one image |" in card
    assert "| top-1 by chance | 23.1 | | % | one class at random, or always the most frequent |" in card
    assert "| latency by the image | 0.02344 | | ms/image | torch-cpu, batch size 64, threads 1 |" in card


def test_names_and_commands_cannot_write_into_the_card(tmp_path: Path) -> None:
    small = small_subnet()
    table = {
        **point_of(small),
        "flops": 2,
        "preprocessing": {"mean": [0.5], "std": [0.5], "interpolation": "bicubic", "crop_pct": 1.0},
        "formats": {},
        "conditions": {"device": "<script>alert(1)</script> | [a](b)\n# x"},
    }
    commands = ["python search.py run '```\n# not a command\n<b>'\x1b[31m"]
    name = "a</h1><script>\n# b\u202e"
    card = model_card(name, small.architecture, small.backbone, table, {"commands": commands, "run": "<b>"})
    text, fenced = card.split("## Reproduce")
    assert "# a\\</h1\\>\\<script\\> # b\\u202e" in text
    assert r"device \<script\>alert(1)\</script\> \| \[a\](b) # x" in text
    assert fenced.count("\n````") == 2  # a longer fence than what is in it
    assert "\x1b" not in card
    assert 'Run: "\\<b\\>".' in fenced
