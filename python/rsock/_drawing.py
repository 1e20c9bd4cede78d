"""`Drawing`: a picture of what a connection or a server did, as SVG with the same as text.

A drawing is a frozen value: it does not change with what it shows. It must never load a package
before a picture is saved in a format that needs one.
"""

import importlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["Drawing"]

# A style sheet, and the rule that a picture of a page without one needs none.
_STYLE: Final = re.compile(r"<style>.*?</style>", re.DOTALL)
# Dots per pixel of a PNG: screens of two dots per pixel, and print.
_SCALE: Final = 2.0


@dataclass(frozen=True, slots=True, repr=False)
class Drawing:
    """A picture: a notebook shows it, `save` writes it, and `str()` is the same picture as text.

    title: what it shows.
    description: the same in a few sentences, which a screen reader reads.
    svg: the picture as an SVG document, which refers to nothing outside itself. It follows the
        colour scheme of its page, light or dark.
    text: the picture for a terminal, up to 100 columns wide.
    """

    title: str
    description: str
    svg: str = field(repr=False)
    text: str = field(repr=False)
    # More that a notebook shows folded, as HTML.
    _more: str = field(default="", repr=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to a file: SVG, text, or PNG, by the ending `.svg`, `.txt` or `.png`.

        PNG needs the package cairosvg; without it raises ImportError. Raises ValueError for another
        ending, and OSError if the file cannot be written.
        """
        file = Path(path)
        ending = file.suffix.lower()
        if ending == ".svg":
            file.write_text(self.svg, encoding="utf-8")
        elif ending == ".txt":
            file.write_text(f"{self.text}\n", encoding="utf-8")
        elif ending == ".png":
            file.write_bytes(self._png(file))
        else:
            raise ValueError(
                f"save {str(file)!r}: the ending {ending!r} is none of .svg, .png and .txt"
            )

    def _png(self, file: Path) -> bytes:
        try:
            cairosvg: Any = importlib.import_module("cairosvg")
        except (ImportError, OSError) as error:  # OSError: without the library of cairo itself.
            raise ImportError(
                f"save {str(file)!r}: PNG needs the package cairosvg ({error}): "
                f"pip install cairosvg; SVG and text need nothing"
            ) from error
        # Every element has its colours as attributes, too. cairosvg knows no variables of CSS.
        plain = _STYLE.sub("", self.svg)
        png: bytes = cairosvg.svg2png(bytestring=plain.encode(), scale=_SCALE)
        return png

    def __str__(self) -> str:
        """Return the picture as text."""
        return self.text

    def __repr__(self) -> str:
        return self.text

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return f"<div>{self.svg}{self._more}</div>"
