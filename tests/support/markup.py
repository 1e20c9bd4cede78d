"""The HTML of displays, checked while it is read.

Must never accept a tag that is closed in the wrong order, nor an attribute that runs code.
"""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"br", "col", "hr", "img", "meta", "wbr"}


class Checker(HTMLParser):
    """Collects text and tags, and fails on a tag that is closed in the wrong order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def html_of(thing: object) -> str:
    name = "_repr_html_"
    text = getattr(thing, name)()
    assert isinstance(text, str)
    return text


def checked(thing: object) -> Checker:
    return Checker(html_of(thing))
