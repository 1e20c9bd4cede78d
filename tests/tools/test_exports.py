"""The package contains what it declares, for people and for tools."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
import types
from importlib import resources

import pytest
from support import output_of
from support.project import ROOT

import rsock
from rsock import _rsock

PUBLIC = [
    "Client",
    "Echo",
    "Endpoint",
    "IncompleteRead",
    "Ledger",
    "Limits",
    "Record",
    "RsockError",
    "Server",
    "Service",
    "SocketOptions",
    "StateError",
    "StopReport",
    "process_limits",
    "raise_fd_limit",
    "run_server",
    "servers",
    "stop_all",
]


def stub() -> ast.Module:
    return ast.parse(resources.files("rsock").joinpath("_rsock.pyi").read_text())


def names_in(body: list[ast.stmt]) -> set[str]:
    """The names that a stub's module or class body defines."""
    found = set()
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def test_the_names_promised_are_there() -> None:
    assert set(PUBLIC) <= set(rsock.__all__)


def test_every_registered_service_is_exported() -> None:
    source = (ROOT / "src" / "py" / "services.rs").read_text()
    registered = set(
        re.findall(
            r"^    (\w+) \"[^\n]*\" \(py[^\n]*\) => ", source.split("\nservices! {")[1], re.M
        )
    )
    assert "Echo" in registered
    # Services that hold Python objects have their own classes.
    registered |= {"Accept", "ByConnection", "Forward", "Handler", "Replay", "Script"}
    assert registered == {kind.__name__ for kind in _rsock.Service.__subclasses__()}
    assert registered <= set(rsock.__all__)


def test_all_is_sorted_without_duplicates_and_true() -> None:
    assert len(set(rsock.__all__)) == len(rsock.__all__)
    for name in rsock.__all__:
        assert hasattr(rsock, name)


def test_nothing_else_looks_public() -> None:
    loose = {
        name
        for name, value in vars(rsock).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert loose == {name for name in rsock.__all__ if not name.startswith("_")}


def test_a_star_import_brings_all_of_it() -> None:
    space: dict[str, object] = {}
    exec("from rsock import *", space)
    assert set(rsock.__all__) <= set(space)


def test_faults_are_loaded_when_they_are_asked_for() -> None:
    code = """
import sys, rsock
print("faults" in dir(rsock), [name for name in sys.modules if name.startswith("rsock.faults")])
print(rsock.faults.Latency(0.2), "rsock.faults" in sys.modules, hasattr(rsock, "fault"))
"""
    assert output_of(code) == "True []\nlatency:0.2 True False\n"


def test_the_stub_and_the_module_have_the_same_names() -> None:
    in_stub = names_in(stub().body)
    public = {name for name in vars(_rsock) if not name.startswith("_")}
    assert public == {name for name in in_stub if not name.startswith("_")}
    assert all(hasattr(_rsock, name) for name in in_stub)


def classes_of_the_stub() -> list[ast.ClassDef]:
    return [node for node in stub().body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("node", classes_of_the_stub(), ids=lambda node: str(node.name))
def test_the_stub_and_the_classes_have_the_same_members(node: ast.ClassDef) -> None:
    members = vars(getattr(_rsock, node.name))
    public = {name for name in members if not name.startswith("_")}
    in_stub = names_in(node.body)
    assert public == {name for name in in_stub if not name.startswith("_")}
    for name in in_stub:
        assert hasattr(getattr(_rsock, node.name), name)


@pytest.mark.parametrize("node", classes_of_the_stub(), ids=lambda node: str(node.name))
def test_the_stub_and_the_methods_have_the_same_parameters(node: ast.ClassDef) -> None:
    kind = getattr(_rsock, node.name)
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or method.decorator_list:
            continue
        if method.name.startswith("__") and method.name != "__new__":
            continue
        arguments = method.args
        several = [arguments.vararg] if arguments.vararg else []
        in_stub = [
            argument.arg
            for argument in [
                *arguments.posonlyargs,
                *arguments.args,
                *several,
                *arguments.kwonlyargs,
            ]
        ][1:]
        if method.name == "__new__":
            found = inspect.signature(kind)
            parameters = list(found.parameters)
        else:
            found = inspect.signature(getattr(kind, method.name))
            parameters = list(found.parameters)[1:]
        assert parameters == in_stub, method.name


def test_the_package_is_typed() -> None:
    assert resources.files("rsock").joinpath("py.typed").is_file()


def test_classes_call_the_package_their_home() -> None:
    for name in rsock.__all__:
        value = getattr(rsock, name)
        if inspect.isclass(value):
            assert value.__module__.split(".")[0] == "rsock"
            assert value.__name__ == name


def members(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_")]


@pytest.mark.parametrize("name", [name for name in rsock.__all__ if not name.startswith("_")])
def test_every_public_name_has_help(name: str) -> None:
    value = getattr(rsock, name)
    assert inspect.getdoc(value)
    assert name in pydoc.plain(pydoc.render_doc(value))
    if inspect.isclass(value) and not issubclass(value, BaseException | tuple):
        lacking = [
            member
            for member in members(value)
            if not inspect.getdoc(getattr(value, member))
            # The fields of a plain value are documented in its class.
            and member not in getattr(value, "__dataclass_fields__", {})
        ]
        assert lacking == []


def test_the_package_has_a_version() -> None:
    assert rsock.__version__ == _rsock.__version__
    assert rsock.__version__[0].isdigit()


def test_a_subinterpreter_gets_an_import_error() -> None:
    code = """
import rsock
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
other = interpreters.create()
try:
    failed = interpreters.run_string(other, "import rsock")
    print("ImportError" in str(failed))
except Exception as error:
    print("ImportError" in str(error))
interpreters.destroy(other)
"""
    assert output_of(code, options=("-W", "ignore::DeprecationWarning")) == "True\n"


@pytest.mark.parametrize("kind", [_rsock.Service, rsock.Ledger, rsock.Record])
def test_what_only_rsock_makes_cannot_be_made(kind: type) -> None:
    with pytest.raises(TypeError):
        kind()
