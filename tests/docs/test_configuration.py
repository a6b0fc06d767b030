"""The table of docs/configuration.md is what the code says; `python tests/docs/test_configuration.py` writes it."""

from pathlib import Path

from config_options import describe_config

from nas.settings.config import RunConfig

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
HEAD = "| key | type | default | meaning |\n|---|---|---|---|\n"


def page() -> str:
    rows = []
    for option in describe_config():
        cells = (f"`{option.key}`", option.type, f"`{option.default}`", option.help)
        rows.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return PAGE.read_text().partition(HEAD)[0] + HEAD + "\n".join(rows) + "\n"


def test_page_lists_every_key_as_the_code_has_it():
    assert PAGE.read_text() == page()


class TestDescribing:
    def test_every_key_is_described_with_type_default_and_help(self):
        options = {option.key: option for option in describe_config()}
        assert options["train.batch_size"][1:] == ("whole number, >= 1", "64", "images per step")
        assert options["evaluate.max_images"].type == "whole number | null, >= 1"
        assert options["evaluate.max_images"].default == "null"
        assert options["search.objectives"].type == (
            "list of top1 | balanced_top1 | macs | params | latency_ms | latency_ms_2 | latency_ms_3 | latency_ms_4 | "
            "agreement"
        )
        assert options["train.crop_scale"].type == "[number, number] | null"
        assert options["data.skip_bad_images"].type == "true | false"
        assert [key for key, option in options.items() if not option.help] == []

    def test_keys_are_those_of_a_resolved_configuration(self):
        values = RunConfig().model_dump()
        flat = [
            f"{k}.{inner}" if isinstance(v, dict) else k
            for k, v in values.items()
            for inner in (v if isinstance(v, dict) else [0])
        ]
        assert [option.key for option in describe_config()] == flat


if __name__ == "__main__":
    PAGE.write_text(page())
