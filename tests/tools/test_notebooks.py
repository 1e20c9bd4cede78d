"""Every notebook of `notebooks/` runs to its end, and its stored outputs are what it shows.

A notebook runs in a fresh kernel of this interpreter, managed by a separate process: nothing of
Jupyter is imported here, and nothing may be left in the user's Jupyter directories.

`.venv/bin/python tests/tools/test_notebooks.py` runs them and stores their outputs.
"""

from __future__ import annotations

import fcntl
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# The same code with other words around it.
TRANSLATED = ROOT / "notebooks" / "ko"
DEADLINE = 50.0

Cell = dict[str, Any]
# A notebook's cells after its run.
Run = Callable[[Path], list[Cell]]

# Runs the notebook argv[1] with all of Jupyter's files in the folder argv[2], the result included.
RUN = """
import json, os, sys
from pathlib import Path

notebook, folder, tests = map(Path, sys.argv[1:])
for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
    os.environ["JUPYTER_" + name] = str(folder / name)
os.environ["IPYTHONDIR"] = str(folder / "ipython")
os.environ["PYTHONPATH"] = str(tests)

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

# A kernel named "python3" may be any interpreter that is installed on the machine.
kernel = folder / "DATA_DIR" / "kernels" / "of-this-test"
kernel.mkdir(parents=True)
argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
kernel.joinpath("kernel.json").write_text(
    json.dumps({"argv": argv, "display_name": "", "language": "python"})
)

BEFORE = '''
import sys as _sys, warnings as _warnings
import support as _support

# Warnings inside Jupyter's own modules do not matter here.
_warnings.filterwarnings("error", module="__main__|rsock")
_warnings.simplefilter("error", ResourceWarning)
_ignored = []
_sys.unraisablehook = lambda args: _ignored.append(repr(args.exc_value))
_held = _support.held()
'''
AFTER = '''
_support.given_back(_held)
assert _ignored == [], _ignored
'''
book = nbformat.read(notebook, as_version=4)
book.cells.insert(0, nbformat.v4.new_code_cell(BEFORE))
book.cells.append(nbformat.v4.new_code_cell(AFTER))
# Sockets in a folder instead of ports, which other tests might take meanwhile.
config = Config({"KernelManager": {"transport": "ipc", "ip": str(folder / "ipc")}})
NotebookClient(
    book,
    config=config,
    kernel_name=kernel.name,
    record_timing=False,
    resources={"metadata": {"path": str(folder)}},
    startup_timeout=30,
    timeout=20,
).execute()
del book.cells[0], book.cells[-1]
nbformat.write(book, folder / "done.ipynb")
"""


def run(notebook: Path, folder: Path) -> list[Cell]:
    """The cells of a notebook after a run, numbered as in a run by a reader."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, notebook, folder, ROOT / "tests"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cells: list[Cell] = json.loads((folder / "done.ipynb").read_text())["cells"]
    number = 0
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        number += 1
        cell["execution_count"] = number
        for output in cell["outputs"]:
            if "execution_count" in output:
                output["execution_count"] = number
    return cells


def run_apart(notebook: Path) -> list[Cell]:
    # Not pytest's own folder, because the path of a Unix socket must be short.
    with tempfile.TemporaryDirectory(prefix="rsock-") as folder:
        return run(notebook, Path(folder))


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Run:
    """Runs a notebook once for all processes of pytest-xdist, and returns its cells."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def ran(notebook: Path) -> list[Cell]:
        result = shared / f"{notebook.stem}.json"
        with result.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not result.exists():
                result.write_text(json.dumps(run_apart(notebook)))
            cells: list[Cell] = json.loads(result.read_text())
            return cells

    return ran


def stored(notebook: Path) -> dict[str, Any]:
    book: dict[str, Any] = json.loads(notebook.read_text())
    return book


def code(cells: list[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell["cell_type"] == "code"]


def shown(cell: Cell) -> str:
    """The output of a cell, as text."""
    texts = [output.get("data", {}).get("text/plain", []) for output in cell["outputs"]]
    return "\n".join("".join(text) for text in texts)


def title(cell: Cell) -> str:
    """The output of a cell, as text; of a drawing its title, since its lengths are times."""
    kinds = {kind for output in cell["outputs"] for kind in output.get("data", {})}
    is_drawing = "image/svg+xml" in kinds
    return shown(cell).partition("\n")[0] if is_drawing else shown(cell)


def alike(text: str) -> str:
    """The text without what differs from run to run: numbers, durations, and their padding."""
    text = re.sub(r"\d+([,.]\d+)*(e-\d+)?( (µs|ms|s)\b)?", "0", text)
    return " ".join(text.split())


each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@each_notebook
def test_a_notebook_runs_and_leaves_nothing(notebook: Path, ran: Run) -> None:
    kinds = {output["output_type"] for cell in code(ran(notebook)) for output in cell["outputs"]}
    # No output, no warning, no traceback: only the value of a cell.
    assert kinds == {"execute_result"}


@each_notebook
def test_what_is_stored_is_what_a_run_shows(notebook: Path, ran: Run) -> None:
    now = {cell["id"]: alike(title(cell)) for cell in code(ran(notebook))}
    then = {cell["id"]: alike(title(cell)) for cell in code(stored(notebook)["cells"])}
    assert then == now, "run .venv/bin/python tests/tools/test_notebooks.py"


@each_notebook
def test_what_is_stored_was_run_from_top_to_bottom(notebook: Path) -> None:
    cells = code(stored(notebook)["cells"])
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1))


@each_notebook
def test_what_is_stored_is_of_no_machine_in_particular(notebook: Path) -> None:
    book = stored(notebook)
    assert book["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert all(cell["metadata"] == {} for cell in book["cells"])
    for cell in code(book["cells"]):
        assert not re.search(r"/(home|root|tmp|usr|work)/", json.dumps(cell["outputs"])), cell["id"]


@each_notebook
def test_cells_have_names(notebook: Path) -> None:
    names = [cell["id"] for cell in stored(notebook)["cells"]]
    assert len(set(names)) == len(names)
    for name in names:
        # Jupyter generates identifiers of eight random digits.
        assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", name)
        assert not re.fullmatch(r"[0-9a-f]{8}", name)


@each_notebook
def test_the_translation_has_the_same_cells_and_outputs(notebook: Path) -> None:
    cells, translated = (stored(path)["cells"] for path in (notebook, TRANSLATED / notebook.name))
    assert code(translated) == code(cells), "run .venv/bin/python tests/tools/test_notebooks.py"
    assert [cell["id"] for cell in translated] == [cell["id"] for cell in cells]
    for cell in translated:
        if cell["cell_type"] == "markdown":
            assert re.search("[가-힣]", "".join(cell["source"])), cell["id"]


def test_every_notebook_is_translated() -> None:
    names = [path.name for path in sorted(TRANSLATED.glob("*.ipynb"))]
    assert names == [path.name for path in NOTEBOOKS]


def tells_of_a_socket(shown: dict[str, str]) -> None:
    assert len(set(re.findall(r": (\d+)", shown["three"]))) == 3
    assert "not connected" in shown["listener"]


def tells_of_the_steps(shown: dict[str, str]) -> None:
    for step, state in (("new",) * 2, ("create", "created"), ("bind", "bound"), ("listen",) * 2):
        assert f"'{state}" in shown[f"server-{step}"]
    assert "Connection refused" in shown["server-refused"]
    assert shown["server-queue"] == "('listening', 0)"
    assert re.findall(r"number (\d)", shown["loop-run"]) == ["0", "1", "2"]
    assert shown["async-with"] == r"(b'hello from a coroutine\n', 'stopped')"
    assert shown["clean-done"] == "([], 'stopped')"


def tells_of_echo_and_exit(shown: dict[str, str]) -> None:
    assert shown["closed-by"] == "['service', 'peer']"


def tells_of_many_clients(shown: dict[str, str]) -> None:
    assert shown["queue"] == "('ESTABLISHED', 3, 0)"


def tells_of_segments(shown: dict[str, str]) -> None:
    assert "[1460, 1460, 1460, 620]" in shown["count"]


def tells_of_udp(shown: dict[str, str]) -> None:
    assert (shown["borders"], shown["empty"]) == ("(b'one', b'two')", "b''")


def tells_of_forwarding(shown: dict[str, str]) -> None:
    assert shown["half-ended"] == "(33, 33, 'peer')"


def tells_of_faults(shown: dict[str, str]) -> None:
    assert "Connection reset" in shown["reset"]


def tells_of_the_ledger(shown: dict[str, str]) -> None:
    assert shown["second"] == "(9, 'reset')"


def tells_of_a_protocol(shown: dict[str, str]) -> None:
    assert "'limit'" in shown["bad"]


def tells_of_tests(shown: dict[str, str]) -> None:
    assert shown["retry"].startswith("((b'250 ok', 2)")


TOLD = {
    "01-what-a-socket-is": tells_of_a_socket,
    "02-steps-of-server-and-client": tells_of_the_steps,
    "03-echo-and-exit": tells_of_echo_and_exit,
    "04-many-clients": tells_of_many_clients,
    "05-segments-and-streams": tells_of_segments,
    "06-udp": tells_of_udp,
    "07-port-forwarding": tells_of_forwarding,
    "08-when-the-network-misbehaves": tells_of_faults,
    "09-rfc-147-and-the-ledger": tells_of_the_ledger,
    "10-your-own-protocol": tells_of_a_protocol,
    "11-testing-with-rsock": tells_of_tests,
}


@each_notebook
def test_the_tour_shows_what_it_tells(notebook: Path, ran: Run) -> None:
    TOLD[notebook.stem]({cell["id"]: shown(cell) for cell in code(ran(notebook))})


def store(notebook: Path) -> None:
    """Run a notebook; store its outputs in its file and in that of its translation."""
    cells = run_apart(notebook)
    outputs = {cell["id"]: cell for cell in cells if cell["cell_type"] == "code"}
    for path in (notebook, TRANSLATED / notebook.name):
        book = stored(path)
        book["cells"] = [outputs.get(cell["id"], cell) for cell in book["cells"]]
        for cell in book["cells"]:
            cell["metadata"] = {}
        text = json.dumps(book, indent=1, ensure_ascii=False, sort_keys=True)
        path.write_text(text + "\n")


if __name__ == "__main__":
    for each in NOTEBOOKS:
        store(each)
