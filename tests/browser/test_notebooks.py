"""Every notebook of the tour runs in JupyterLab, and its displays and drawings are seen there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.project import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Opens a notebook and runs all of its cells, as "Run > Run All Cells" does.
RUN = """
async ([path, seconds]) => {
  const late = new Promise((_, fail) =>
    setTimeout(() => fail(new Error(`${path} has not ended within ${seconds} s`)), seconds * 1000));
  const run = async () => {
    const app = window.jupyterapp;
    const panel = await app.commands.execute("docmanager:open", { path, factory: "Notebook" });
    await panel.context.ready;
    await panel.sessionContext.ready;
    app.shell.activateById(panel.id);
    const ok = await app.commands.execute("notebook:run-all-cells");
    const cells = [];
    for (const cell of panel.content.model.cells) {
      if (cell.type === "code") {
        const outputs = cell.outputs.toJSON();
        cells.push({ id: cell.id, count: cell.executionCount, outputs });
      }
    }
    return { ok, cells };
  };
  return Promise.race([run(), late]);
}
"""

# The outputs that are wider than their place, and the drawings that cannot be seen.
SEEN = """
() => {
  const faults = [];
  let drawings = 0, tables = 0;
  for (const output of document.querySelectorAll(".jp-Notebook .jp-OutputArea-output")) {
    const name = output.closest(".jp-Cell")?.querySelector(".jp-Editor, .cm-content")?.textContent;
    for (const svg of output.querySelectorAll("svg[role=img], img")) {
      drawings += 1;
      const box = svg.getBoundingClientRect();
      if (!(box.width > 100 && box.height > 50)) faults.push(["not seen", name]);
      if (box.right > output.getBoundingClientRect().right + 1) faults.push(["too wide", name]);
    }
    tables += output.querySelectorAll("table").length;
  }
  return { faults, drawings, tables };
}
"""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_runs_in_jupyterlab(notebook: Path, lab_page: Any, shoot: Any) -> None:
    ran = lab_page.evaluate(RUN, [notebook.name, 60])
    assert ran["ok"]
    errors = [
        (cell["id"], output)
        for cell in ran["cells"]
        for output in cell["outputs"]
        if output["output_type"] == "error" or output.get("name") == "stderr"
    ]
    assert errors == []
    assert all(cell["count"] for cell in ran["cells"])

    lab_page.set_viewport_size({"width": 700, "height": 1_000})
    stored = json.loads(notebook.read_text())["cells"]
    kinds = [
        kind for cell in stored for output in cell.get("outputs", []) for kind in output["data"]
    ]
    lab_page.wait_for_function(
        f"() => ({SEEN})().drawings >= {kinds.count('image/svg+xml')}", timeout=30_000
    )
    assert lab_page.evaluate(SEEN)["faults"] == []

    def shorten() -> None:
        """Make the page as high as the notebook is at this width."""
        height = lab_page.evaluate(
            """() => 150 + [...document.querySelectorAll(".jp-Notebook .jp-Cell")]
                .reduce((sum, cell) => sum + cell.getBoundingClientRect().height, 0)"""
        )
        lab_page.set_viewport_size({**lab_page.viewport_size, "height": int(height)})
        # It has gone to the last cell.
        lab_page.locator(".jp-WindowedPanel-outer").evaluate("panel => panel.scrollTo(0, 0)")

    shoot(lab_page, notebook.stem, prepare=shorten)
