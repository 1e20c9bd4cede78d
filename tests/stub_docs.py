"""The docstrings of the stub `_rsock.pyi`, which are those of the compiled module.

Owns the comparison of the two, and the form in which a docstring is written into the stub. It must
never change anything else there, nor a word of a docstring: the words are in `src/py`.

Run as a program it writes the run-time docstrings into the stub, and formats it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import rsock
from rsock import _rsock

STUB = Path(rsock.__file__).parent / "_rsock.pyi"
# As in `pyproject.toml`.
WIDTH = 100

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.ClassDef | Function


def definitions(tree: ast.Module) -> Iterator[tuple[str, Definition]]:
    """Yield classes, functions and members with their names; not dunder methods.

    The texts of those come from Python itself; for `__new__` an editor shows the class's.
    """
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name, node
            for member in node.body:
                if isinstance(member, Function) and not _is_dunder(member.name):
                    yield f"{node.name}.{member.name}", member
        elif isinstance(node, Function):
            yield node.name, node


def is_public(name: str) -> bool:
    """Whether no part of a dotted name begins with an underscore."""
    return not any(part.startswith("_") for part in name.split("."))


def run_time_doc(name: str) -> str | None:
    """The docstring of a definition in the compiled module."""
    found: object = _rsock
    for part in name.split("."):
        found = getattr(found, part)
    return found.__doc__


def paragraphs(doc: str | None) -> list[list[str]]:
    """The words of each paragraph, which do not depend on the width of the lines."""
    return [part.split() for part in textwrap.dedent(doc or "").strip().split("\n\n")]


def brought_up_to_date(text: str) -> str:
    """The stub's text, with the run-time docstring of each definition that has one."""
    lines = text.splitlines(keepends=True)
    for name, node in reversed(list(definitions(ast.parse(text)))):
        doc = run_time_doc(name)
        if doc is None:
            continue
        first, indent = node.body[0], " " * (node.col_offset + 4)
        written = f"{indent}{_literal(doc, len(indent))}\n"
        if _is_placeholder(first) or _is_docstring(first):
            # The body of a function without its own text is `...`, often on the line of its head.
            last = node.body[1] if len(node.body) > 1 and _is_placeholder(node.body[1]) else first
            assert last.end_lineno is not None
            head = lines[first.lineno - 1].encode()[: first.col_offset].decode().rstrip()
            lines[first.lineno - 1 : last.end_lineno] = [f"{head}\n" if head else "", written]
        else:
            # A class without a docstring: its head is one line.
            assert lines[node.lineno - 1].endswith(":\n"), name
            lines.insert(node.lineno, written)
    return "".join(lines)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _is_placeholder(node: ast.stmt) -> bool:
    return _is_constant(node, type(...))


def _is_docstring(node: ast.stmt) -> bool:
    return _is_constant(node, str)


def _is_constant(node: ast.stmt, kind: type) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, kind)
    )


def _literal(doc: str, indent: int) -> str:
    """A docstring as it is written at this indentation; lines that are too long are wrapped."""
    quotes = '"""'
    assert quotes not in doc
    opening = f"r{quotes}" if "\\" in doc else quotes
    text = f"{opening}{doc.strip()}"
    width = WIDTH - indent
    if "\n" not in text and len(text) + len(quotes) <= width and not text.endswith('"'):
        return f"{text}{quotes}"
    # The formatter puts the closing quotes of a single line behind it, however long it is.
    text = _wrapped(text, width if "\n" in text else width - len(quotes))
    return textwrap.indent(f"{text}\n{quotes}", " " * indent).lstrip()


def _wrapped(text: str, width: int) -> str:
    """The text with each block, a paragraph or an item of a list, filled if a line is too long."""
    blocks: list[list[str]] = []
    for line in text.splitlines():
        if not blocks or not line or not blocks[-1][-1] or line.startswith("- "):
            blocks.append([])
        blocks[-1].append(line)
    filled = []
    for block in blocks:
        if max(map(len, block)) > width:
            item = block[0].startswith("- ")
            block = textwrap.wrap(
                " ".join(" ".join(block).split()),
                width,
                subsequent_indent="  " if item else "",
                break_long_words=False,
                break_on_hyphens=False,
            )
        filled += block
    return "\n".join(filled)


if __name__ == "__main__":
    STUB.write_text(brought_up_to_date(STUB.read_text()))
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", STUB], check=True)
