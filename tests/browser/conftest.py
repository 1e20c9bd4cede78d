"""What is started once for all tests in the browser: Chromium, JupyterLab, and the site.

`make browser-test` installs what they need. Must never ask another machine: Chromium resolves no
name.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import gallery
from support.lab import Lab, in_scheme
from support.processes import Beside
from support.project import ROOT

# The types of Playwright are not there where it is not installed.
Browser = Any
Page = Any
Shoot = Callable[..., None]

WIDTHS = (700, 1_400)
SCHEMES = ("light", "dark")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", metavar="DIR", help="write pictures of the pages to DIR")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    sync_api: Any = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def shoot(request: pytest.FixtureRequest) -> Shoot:
    """`shoot(page, name)` writes pictures of the page, where --screenshots names a folder."""
    folder = request.config.getoption("--screenshots")

    def shoot(
        page: Page,
        name: str,
        part: str = "",
        widths: tuple[int, ...] = WIDTHS,
        schemes: tuple[str, ...] = SCHEMES,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        if not folder:
            return
        before = page.viewport_size
        for width in widths:
            for scheme in schemes:
                page.set_viewport_size({"width": width, "height": before["height"]})
                in_scheme(page, scheme)
                prepare()
                file = Path(folder) / f"{name}-{width}-{scheme}.png"
                of = page.locator(part).first if part else page
                of.screenshot(path=file, animations="disabled")
        page.set_viewport_size(before)
        page.emulate_media(color_scheme="light")

    return shoot


@pytest.fixture(scope="session")
def displays() -> dict[str, str]:
    return gallery.displays()


@pytest.fixture(scope="session")
def drawings() -> dict[str, str]:
    return gallery.drawings()


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.skip("there is no jupyterlab: make browser-test installs it")
    # Not pytest's own folder, because the path of a Unix socket must be short.
    with tempfile.TemporaryDirectory(prefix="rsock-") as root:
        with Lab(Path(root)) as lab:
            for notebook in (ROOT / "notebooks").glob("*.ipynb"):
                shutil.copy(notebook, lab.folder)
            yield lab


@pytest.fixture(scope="session")
def lab_window(browser: Browser, lab: Lab) -> Iterator[Page]:
    """A page with JupyterLab, whose side bar is closed. It takes seconds to load."""
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(lab.url)
        page.wait_for_function("() => window.jupyterapp !== undefined")
        page.evaluate("async () => { await jupyterapp.restored; jupyterapp.shell.collapseLeft(); }")
        yield page


# Ends the kernels of all notebooks, and closes them without a question.
CLOSE = """
async () => {
  for (const panel of [...jupyterapp.shell.widgets("main")]) {
    if (panel.sessionContext) {
      await panel.sessionContext.shutdown();
    }
    panel.dispose();
  }
}
"""


@pytest.fixture
def lab_page(lab_window: Page) -> Iterator[Page]:
    """The page with JupyterLab, without a notebook."""
    lab_window.set_viewport_size({"width": 1_400, "height": 1_000})
    yield lab_window
    lab_window.evaluate(CLOSE)


class Site(Beside):
    """The site, as the program of `make docs` serves it."""

    process: subprocess.Popen[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*command, "--directory", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        found = re.search(r"port (\d+)", self.process.stdout.readline())
        assert found
        self.url = f"http://127.0.0.1:{found[1]}"


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    folder = ROOT / "target" / "site"
    assert (folder / "index.html").exists(), "the site is built by: make site"
    with Site(folder) as site:
        yield site
