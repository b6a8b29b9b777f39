"""What a pickle can do to whoever reads it: call anything with anything."""

from collections.abc import Callable


class Call:
    """Whose pickle calls a function when it is read."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.content = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.content
