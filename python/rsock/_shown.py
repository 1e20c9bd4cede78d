"""`Shown`: the method by which a notebook displays a plain value.

It looks up the display by its name, as the classes in Rust do, because displays lie above the
values that they show. Nothing here may load a display before a notebook asks for one.
"""

import importlib

__all__ = ["Shown", "html_of"]


def html_of(value: object) -> str:
    """Return the display of a value as an HTML table."""
    shown: str = importlib.import_module("rsock._display._values").value_html(value)
    return shown


class Shown:
    """A value that a notebook displays as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return html_of(self)
