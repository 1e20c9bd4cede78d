"""The layers of the code: which file may use which.

Owns the list of layers and the reading of `use` and `import` lines; must never run the code it
reads.

`python tests/test_layers.py [ROOT]` prints the counts of a checkout.
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From top to bottom. A file may use what is further down, and its own folder; entries of one line
# know nothing of each other. `a` is the file a.rs or the folder a.
RUST_LAYERS = [
    ["lib"],
    ["py"],
    ["net/server"],
    ["net/load"],
    ["net/datagram"],
    ["net/handoff"],
    ["net/worker"],
    ["net/connection", "net/stream", "net/services"],
    ["net/control"],
    ["net/stage"],
    ["net/service"],
    ["net/recording"],
    ["net/ledger"],
    ["net/socket"],
    ["net/address"],
    ["net/base"],
    ["net/error"],
    ["net/sys"],
]
PYTHON_LAYERS = [
    ["__main__"],
    ["_cli"],
    ["pytest_plugin"],
    ["_pytest"],
    ["__init__"],
    ["_connection"],
    ["_server", "_wait_for"],
    ["metrics"],
    ["_counts"],
    ["_client", "_notify", "_signals", "_started"],
    ["_fault_view"],
    ["_in_thread", "_replay"],
    ["_recording", "_script"],
    ["_packets"],
    ["_stream"],
    ["_handlers"],
    ["_handler_check", "_handler_errors", "_progress", "_certificates", "_ledger", "_awaiting"],
    ["_display"],
    ["_recorded"],
    ["_rsock"],
    ["_pcapng"],
    ["_types"],
    ["_proxy"],
    ["_drawing", "_endpoint", "_settings", "_threads"],
    ["faults"],
    ["_fault"],
    ["_fault_text"],
    ["_checks", "_exceptions", "_keywords", "_printable", "_shown", "_systemd", "rfc147"],
]

Graph = dict[str, set[str]]


# --- reading -------------------------------------------------------------------------------


def flat(tree: str) -> Iterator[list[str]]:
    """The paths of one `use` tree: `a::{b, c::d}` is `a::b` and `a::c::d`."""
    tree = tree.strip()
    head, brace, rest = tree.partition("{")
    if not brace:
        yield [part.strip() for part in re.sub(r"\s+as\s+\w+$", "", tree).split("::")]
        return
    before = [part.strip() for part in head.split("::") if part.strip()]
    depth, start = 0, 0
    inner = rest[: rest.rindex("}")]
    for at, sign in enumerate(inner + ","):
        depth += (sign == "{") - (sign == "}")
        if sign == "," and depth == 0:
            if inner[start:at].strip():
                for path in flat(inner[start:at]):
                    yield before + path
            start = at + 1


USE = re.compile(r"^\s*(?:pub(?:\([^)]*\))? )?use ([^;]+);", re.MULTILINE)
# A path inside of an expression or a type.
INLINE = re.compile(r"\b(?:crate|super)::[\w:]+")


class Rust:
    """The files of `src` by module path: `net/ledger/record`, `net/ledger` for its `mod.rs`."""

    def __init__(self, root: Path) -> None:
        self.texts: dict[str, str] = {}
        self.whole: dict[str, str] = {}
        self.tables: set[str] = set()
        for file in sorted((root / "src").rglob("*.rs")):
            path = file.relative_to(root / "src").with_suffix("")
            name = path.parent.as_posix() if path.name == "mod" else path.as_posix()
            if path.name == "mod":
                self.tables.add(name)
            text = file.read_text()
            self.whole[name] = text
            # Comments, and what only tests use, are no arrows.
            text = re.sub(r"(?m)//.*$", "", text.partition("#[cfg(test)]")[0])
            self.texts[name] = text
        self.exports = {name: dict(self.reexports(name)) for name in self.tables}

    def reexports(self, name: str) -> Iterator[tuple[str, str]]:
        """The names that a `mod.rs` passes on from its files."""
        for found in re.finditer(r"pub(?:\([^)]*\))? use ([^;]+);", self.texts[name]):
            for path in flat(found[1]):
                path = path[1:] if path[0] == "self" else path
                if len(path) > 1 and f"{name}/{path[0]}" in self.texts:
                    yield path[-1], f"{name}/{path[0]}"

    def absolute(self, name: str, path: list[str]) -> list[str] | None:
        """A path of a file as one below `crate`; None where it leads elsewhere."""
        if path[0] == "crate":
            return path[1:]
        # The module that the file is: for `mod.rs` the folder itself.
        here = name.split("/")
        if path[0] == "self":
            return here + path[1:]
        if path[0] == "super":
            while path and path[0] == "super":
                here, path = here[:-1], path[1:]
            return here + path
        return None

    def file_of(self, path: list[str]) -> str | None:
        """The file that a path leads to: the longest that exists, or what its folder re-exports."""
        for length in range(len(path), 0, -1):
            name = "/".join(path[:length])
            if name in self.texts:
                passed_on = self.exports.get(name, {})
                if length < len(path) and path[length] in passed_on:
                    return passed_on[path[length]]
                return name
        return None

    def graph(self) -> Graph:
        graph: Graph = {name: set() for name in self.texts}
        for name, text in self.texts.items():
            paths = [path for found in USE.finditer(text) for path in flat(found[1])]
            paths += [found[0].split("::") for found in INLINE.finditer(USE.sub("", text))]
            for path in paths:
                absolute = self.absolute(name, path)
                target = self.file_of(absolute) if absolute else None
                if target is None or target == name or target == "lib":
                    continue
                # A folder's table of contents names its files; that is no arrow.
                if name in self.tables and target.startswith(f"{name}/"):
                    continue
                graph[name].add(target)
        return graph


def python_graph(root: Path) -> tuple[Graph, dict[str, str]]:
    """The modules of `python/rsock` and what each imports, at any place in it."""
    package = root / "python" / "rsock"
    texts: dict[str, str] = {}
    for file in sorted(package.rglob("*.py")) + sorted(package.rglob("*.pyi")):
        path = file.relative_to(package).with_suffix("")
        folder = path.name == "__init__" and len(path.parts) > 1
        texts[path.parent.as_posix() if folder else path.as_posix()] = file.read_text()
    graph: Graph = {name: set() for name in texts}

    def target_of(parts: list[str]) -> str | None:
        for length in range(len(parts), 0, -1):
            if "/".join(parts[:length]) in texts:
                return "/".join(parts[:length])
        return "__init__"

    for name, text in texts.items():
        folder = (package / name / "__init__.py").exists()
        here = [] if name == "__init__" else name.split("/")
        for node in ast.walk(ast.parse(text)):
            targets: list[str | None] = []
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "rsock":
                        targets.append(target_of(alias.name.split(".")[1:]))
            elif isinstance(node, ast.ImportFrom):
                if node.level:
                    up = node.level - folder - (name == "__init__")
                    base = here[: len(here) - up] if up > 0 else here
                    base = base + (node.module.split(".") if node.module else [])
                elif (node.module or "").split(".")[0] == "rsock":
                    base = (node.module or "").split(".")[1:]
                else:
                    continue
                targets += [target_of([*base, alias.name]) for alias in node.names]
            for target in targets:
                if (
                    target is not None
                    and target != name
                    and not (folder and target.startswith(f"{name}/"))
                ):
                    graph[name].add(target)
    return graph, texts


# --- judging -------------------------------------------------------------------------------


def layer_of(name: str, layers: list[list[str]]) -> tuple[int, int] | None:
    """The line of a file, and its place in it."""
    for line, entries in enumerate(layers):
        for place, entry in enumerate(entries):
            if name == entry or name.startswith(f"{entry}/"):
                return line, place
    return None


def wrong_arrows(graph: Graph, layers: list[list[str]]) -> list[str]:
    """The arrows that go up, or to a sibling on the same line."""
    wrong = []
    for name, targets in graph.items():
        here = layer_of(name, layers)
        for target in sorted(targets):
            there = layer_of(target, layers)
            if here is None or there is None or here == there or here[0] < there[0]:
                continue
            wrong.append(f"{name} -> {target}" + (" (siblings)" if here[0] == there[0] else ""))
    return wrong


def circles(graph: Graph) -> list[list[str]]:
    """The groups of files that use each other, directly or by others: Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in graph[name]:
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def opening(text: str) -> str:
    """The first sentence of a file."""
    if text.startswith("//!"):
        lines = (line[3:].strip() for line in text.splitlines() if line.startswith("//!"))
        words = " ".join(lines)
    else:
        words = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
    return re.split(r"(?<=[.:;])\s", words, maxsplit=1)[0]


def counts(root: Path) -> Iterator[str]:
    """What the files of a checkout come to, a line each."""
    rust = Rust(root)
    python, texts = python_graph(root)
    for name, graph, layers, sources in [
        ("src", rust.graph(), RUST_LAYERS, rust.whole),
        ("python/rsock", python, PYTHON_LAYERS, texts),
    ]:
        sizes = {file: text.count("\n") for file, text in sources.items()}
        groups = circles(graph)
        largest = max(sizes, key=lambda file: sizes[file])
        yield f"{name}: {len(graph)} files, {sum(map(len, graph.values()))} arrows"
        yield f"  circles: {len(groups)}" + "".join(f" ({len(group)} files)" for group in groups)
        yield f"  upward arrows: {len(wrong_arrows(graph, layers))}"
        median = statistics.median(sizes.values())
        yield f"  largest file: {largest}, {sizes[largest]} lines; median {median:.0f}"


# --- the tests -----------------------------------------------------------------------------


def report(lines: Iterable[str]) -> str:
    return "\n".join(["", *lines])


@pytest.fixture(scope="module")
def rust() -> Rust:
    return Rust(ROOT)


def test_rust_files_use_only_what_is_below_them(rust: Rust) -> None:
    print(report(counts(ROOT)))
    wrong = wrong_arrows(rust.graph(), RUST_LAYERS)
    assert not wrong, report(wrong)


def test_no_rust_files_use_each_other(rust: Rust) -> None:
    found = circles(rust.graph())
    assert not found, report(" ".join(group) for group in found)


def test_every_rust_file_has_a_layer(rust: Rust) -> None:
    outside = [name for name in rust.texts if layer_of(name, RUST_LAYERS) is None]
    assert outside == ["net"], "src/net/mod.rs shows the layers; every other file is in one"


def test_python_modules_import_only_what_is_below_them() -> None:
    graph, _ = python_graph(ROOT)
    assert not [name for name in graph if layer_of(name, PYTHON_LAYERS) is None]
    wrong = wrong_arrows(graph, PYTHON_LAYERS)
    assert not wrong, report(wrong)


def test_no_python_modules_import_each_other() -> None:
    found = circles(python_graph(ROOT)[0])
    assert not found, report(" ".join(group) for group in found)


def test_every_file_opens_with_one_thing(rust: Rust) -> None:
    """A file whose first sentence needs "and" is two files."""
    texts = {f"src/{name}": text for name, text in rust.whole.items()}
    texts |= {f"python/rsock/{name}": text for name, text in python_graph(ROOT)[1].items()}
    bare = [name for name, text in texts.items() if not opening(text)]
    assert not bare, report(bare)
    double = [name for name, text in texts.items() if re.search(r"\band\b", opening(text))]
    assert not double, report(f"{name}: {opening(texts[name])}" for name in double)


def test_the_reader_finds_what_it_is_to_find(tmp_path: Path) -> None:
    """An arrow up, a sibling, and a circle, each put into a small tree."""
    net = tmp_path / "src" / "net"
    for file, text in {
        "sys/mod.rs": "//! a\nmod call;\npub(crate) use self::call::{recv, send};",
        "sys/call.rs": "//! a\nuse crate::net::error::Error;",
        "error.rs": "//! a",
        "stream/mod.rs": "//! a\nmod one;\nmod two;",
        "stream/one.rs": "//! a\nuse super::two::{self, Two};\nuse std::{io, fmt};",
        "stream/two.rs": "//! a\nfn f() { super::one::g(); crate::net::services::Echo; }",
        "services/mod.rs": "//! a\nmod echo;\npub use echo::Echo;",
        "services/echo.rs": "//! a\nuse crate::net::{\n  error::Error,\n  sys::{recv as r},\n};",
    }.items():
        (net / file).parent.mkdir(parents=True, exist_ok=True)
        (net / file).write_text(text)
    graph = Rust(tmp_path).graph()
    assert graph["net/services/echo"] == {"net/error", "net/sys/call"}
    assert wrong_arrows(graph, RUST_LAYERS) == [
        "net/stream/two -> net/services/echo (siblings)",
        "net/sys/call -> net/error",
    ]
    assert circles(graph) == [["net/stream/one", "net/stream/two"]]


if __name__ == "__main__":
    for line in counts(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT):
        print(line)
