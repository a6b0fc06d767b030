"""docs/configuration.md is what the code says; `python tests/test_configuration_docs.py` writes it anew."""

from pathlib import Path

from nas.settings.options import describe_config

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
HEAD = """# Configuration

Every key of a run's configuration. A file given by `--config FILE` holds them as nested YAML; one of them is set by
`--set section.key=value`; some have a flag of their own. Order: default < file < `--set` < flag. The resolved
configuration is saved in the run as `config.yaml`. Unknown keys are errors.

Keys of the search space (search_spaces/README.md) can be set the same way: `--set constraints.max_macs=30e6`.

| key | type | default | meaning |
|---|---|---|---|
"""


def page() -> str:
    rows = []
    for option in describe_config():
        cells = (f"`{option.key}`", option.type, f"`{option.default}`", option.help)
        rows.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return HEAD + "\n".join(rows) + "\n"


def test_page_lists_every_key_as_the_code_has_it():
    assert PAGE.read_text() == page()


if __name__ == "__main__":
    PAGE.write_text(page())
