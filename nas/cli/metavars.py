"""What stands behind an option in the help: `N`, `FILE`, `KEY=VALUE`; nothing behind a switch."""

from typing import Any

BY_NAME = {
    "settings": "KEY=VALUE",
    "data": "SPEC",
    "init": "WEIGHTS",
    "teacher": "MODEL",
    "target": "TARGET",
    "storage": "URL",
    "ray_address": "ADDRESS",
    "formats": "LIST",
    "license_": "NAME",
    "config": "FILE",
    "run": "DIR",
}
"""By the name of a parameter, where the kind of its value says too little."""

BY_KIND = {"int": "N", "float": "X", "path": "PATH", "str": "NAME", "text": "NAME"}
"""By how a type begins, as typer says it in one version or another."""


def readable(command: Any) -> Any:
    """The same command of typer, and all below it, whose options say in the help what they take."""
    for below in getattr(command, "commands", {}).values():
        readable(below)
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.metavar is None:
            parameter.metavar = _metavar(parameter)
    make_help = command.get_help_option

    def help_option(context: Any) -> Any:
        option = make_help(context)
        if option is not None:
            option.metavar = ""
        return option

    command.get_help_option = help_option
    return command


def _metavar(parameter: Any) -> str | None:
    if parameter.is_flag:
        return ""
    described, click_type = getattr(parameter, "type_descriptor", None), getattr(parameter, "type", None)
    if getattr(described, "is_choice", False) or hasattr(click_type, "choices"):
        return None  # they are shown one by one
    kind = str(getattr(described, "annotation", None) or getattr(click_type, "name", "")).lower()
    return BY_NAME.get(parameter.name) or next((word for known, word in BY_KIND.items() if known in kind), None)
