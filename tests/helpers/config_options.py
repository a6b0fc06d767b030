"""The keys of the configuration in words, of which docs/configuration.md is made."""

import types
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nas.settings.config import RunConfig
from nas.settings.document import shown

A_SLIP = 1000  # upper bounds from here on only catch slips and overflows, and are not told


class Option(NamedTuple):
    """One key of the configuration, in words."""

    key: str
    type: str
    default: str
    help: str


def describe_config(model: type[BaseModel] = RunConfig, prefix: str = "") -> list[Option]:
    """Every key of the configuration, in order: what the reference page and its test are made from."""
    described = []
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            described += describe_config(info.annotation, f"{prefix}{name}.")
        else:
            default = "null" if info.default is None else shown(info.default)
            described.append(Option(prefix + name, _type_words(info), default, info.description or ""))
    return described


def _type_words(info: FieldInfo) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [
        f"{sign} {bound:g}"
        for limit in info.metadata
        for name, sign in signs.items()
        if (bound := getattr(limit, name, None)) is not None and (name[0] == "g" or bound < A_SLIP)
    ]
    return ", ".join([_known(info.metadata) or _words(info.annotation), *bounds])


def _known(metadata: Iterable[Any]) -> str:
    """The words that a validator lets pass."""
    functions = (getattr(item, "func", None) for item in metadata)
    return " | ".join(word for f in functions if isinstance(f, partial) for word in f.keywords.get("known", ()))


def _words(annotation: Any) -> str:
    """A type as a reader would say it."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _known(arguments[1:]) or _words(arguments[0])
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, arguments))
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(_words(argument) for argument in arguments)
    if get_origin(annotation) is dict:
        return "group of keys"
    if get_origin(annotation) is tuple:
        if arguments[-1] is Ellipsis:
            return f"list of {_words(arguments[0])}"
        return f"[{', '.join(_words(argument) for argument in arguments)}]"
    return {int: "whole number", float: "number", str: "text", bool: "true | false", type(None): "null"}[annotation]
