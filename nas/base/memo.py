"""Methods that keep what they have found."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


class _CachedMethod:
    def __init__(self, method: Callable[..., Any]) -> None:
        self.method, self.__doc__ = method, method.__doc__

    def __set_name__(self, _: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, _: type) -> Any:
        if instance is None:
            return self
        bound = instance.__dict__[self.name] = cache(partial(self.method, instance))
        return bound


def cached_method(method: Method) -> Method:
    """A method whose results stay on its instance, by its arguments: `functools.cached_property` with arguments."""
    return cast(Method, _CachedMethod(method))
