"""Every definition that users see has a docstring; the stub's are those of the compiled module.

Owns this comparison, and must never compare signatures, which `mypy.stubtest` does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import stub_docs

import rsock

PACKAGE = Path(rsock.__file__).parent
RENEW = "run .venv/bin/python tests/stub_docs.py"


def test_every_public_definition_of_the_module_has_a_docstring() -> None:
    tree = ast.parse(stub_docs.STUB.read_text())
    names = [name for name, _ in stub_docs.definitions(tree) if stub_docs.is_public(name)]
    assert "Ledger.wait" in names
    lacking = [name for name in names if not stub_docs.run_time_doc(name)]
    assert lacking == [], "write a doc comment in src/py"


def test_the_stub_has_the_docstrings_of_the_module() -> None:
    different = [
        name
        for name, node in stub_docs.definitions(ast.parse(stub_docs.STUB.read_text()))
        if stub_docs.paragraphs(ast.get_docstring(node))
        != stub_docs.paragraphs(stub_docs.run_time_doc(name))
    ]
    assert different == [], RENEW


def test_writing_the_docstrings_changes_nothing_else() -> None:
    text = stub_docs.STUB.read_text()
    written = stub_docs.brought_up_to_date(text)
    assert written == stub_docs.brought_up_to_date(written)

    def without_docstrings(text: str) -> str:
        tree = ast.parse(text)
        for _, node in stub_docs.definitions(tree):
            node.body = [
                each
                for each in node.body
                if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
            ]
        return ast.dump(tree)

    assert without_docstrings(written) == without_docstrings(text)


def public_definitions(
    body: list[ast.stmt], owner: str
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("_") or "overload" in map(ast.unparse, node.decorator_list):
            continue
        yield f"{owner}.{node.name}", node
        if isinstance(node, ast.ClassDef):
            yield from public_definitions(node.body, f"{owner}.{node.name}")


def test_every_public_definition_in_python_has_a_docstring() -> None:
    # The command line is used by its `--help`.
    files = [
        file
        for file in sorted(PACKAGE.rglob("*.py"))
        if "_cli" not in file.relative_to(PACKAGE).parts
    ]
    definitions = [
        definition
        for file in files
        for definition in public_definitions(
            ast.parse(file.read_text()).body, str(file.relative_to(PACKAGE))
        )
    ]
    assert "_server.py.Server.url" in [name for name, _ in definitions]
    assert [name for name, node in definitions if not ast.get_docstring(node)] == []


def test_every_file_opens_with_a_docstring() -> None:
    files = [*PACKAGE.rglob("*.py"), stub_docs.STUB]
    lacking = [str(file) for file in files if not ast.get_docstring(ast.parse(file.read_text()))]
    assert lacking == []
