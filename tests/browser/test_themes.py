"""Every display and drawing, and the live view, in a page like that of VS Code's outputs.

VS Code itself is not here: no test loads its code, nor that of its Jupyter extension. The page has
what they give an output: the classes of the body, the variables and the rules of four of VS Code's
own themes, the white ground that the extension puts widgets on, and the policy of the setting
notebook.experimental.enableCsp, which is stricter than what VS Code has without it.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support import dial, gallery, says_back
from support.contrast import low_contrast
from support.project import ROOT

from rsock import Server
from rsock._display import _watch

URL = "http://127.0.0.1:9/output.html"


@dataclass(frozen=True)
class Theme:
    """A theme of VS Code: the classes of its body, and some of its colours."""

    classes: str
    scheme: str
    ground: str
    ink: str
    code: tuple[str, str]
    contrast: str = ""

    @property
    def high(self) -> bool:
        return bool(self.contrast)


# Dark Modern, Light Modern, Dark High Contrast, Light High Contrast.
THEMES = {
    "dark": Theme("vscode-dark", "dark", "#1f1f1f", "#cccccc", ("#d0d0d0", "#3c3c3c")),
    "light": Theme("vscode-light", "light", "#ffffff", "#3b3b3b", ("#3b3b3b", "#0000001f")),
    "high-contrast": Theme(
        "vscode-high-contrast", "dark", "#000000", "#ffffff", ("#000000", "#ffffff"), "#6fc3df"
    ),
    "high-contrast-light": Theme(
        "vscode-high-contrast vscode-high-contrast-light",
        *("light", "#ffffff", "#292929", ("#ffffff", "#09345f"), "#0f4a85"),
    ),
}
OTHER = {"light": "dark", "dark": "light"}

POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval';"
    "style-src 'self' 'unsafe-inline'; img-src 'self' https: http: data:; font-src 'self' https:;"
    "connect-src https:; child-src https: data:;"
)
# VS Code's own rules are in a layer, so that those of outputs come first.
STYLE = """<style>
html {{
  --vscode-foreground: {ink}; --vscode-editor-foreground: {ink};
  --vscode-editor-background: {ground}; {contrast}
  --vscode-textPreformat-foreground: {code[0]}; --vscode-textPreformat-background: {code[1]};
  background: {ground};
}}
@layer vscode-default {{
  body {{ color: var(--vscode-editor-foreground); font: 13px system-ui, sans-serif; margin: 0;
         padding: 0 20px; background-color: transparent; }}
  code {{ color: var(--vscode-textPreformat-foreground);
         background-color: var(--vscode-textPreformat-background); }}
}}
.cell-output-ipywidget-background {{ background-color: white !important; }}
</style>"""

# The model answers by Python, as it does through the kernel.
LIVE = """<style>{css}</style><div class="{ground}"><div id="view"></div></div>
<script type="module">
{esm}
let show = null;
const model = {{
  send: (message) => window.answer(message).then((told) => show(told)),
  on: (_name, call) => {{ show = call; }},
  off: () => {{}},
}};
view.render({{ model, el: document.getElementById("view") }});
</script>"""


def live_view(ground: str) -> str:
    here = ROOT / "python" / "rsock" / "_display"
    esm = (here / "_watch.js").read_text().replace("export default", "const view =")
    return LIVE.format(css=(here / "_watch.css").read_text(), esm=esm, ground=ground)


@pytest.fixture(params=THEMES)
def theme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def webview(browser: Any, theme: str) -> Iterator[Any]:
    """Opens a page of outputs in a theme, on a system of the other scheme."""
    kind = THEMES[theme]
    contrast = f"--vscode-contrastBorder: {kind.contrast};" if kind.high else ""
    style = STYLE.format(ink=kind.ink, ground=kind.ground, code=kind.code, contrast=contrast)

    with browser.new_context(
        viewport={"width": 700, "height": 1_000}, color_scheme=OTHER[kind.scheme]
    ) as context:
        page = context.new_page()
        refused: list[str] = []
        page.expose_function("refused", lambda what: refused.append(what))
        page.add_init_script(
            'document.addEventListener("securitypolicyviolation",'
            " (told) => window.refused(`${told.effectiveDirective} ${told.blockedURI}`));"
        )

        def opened(outputs: dict[str, str], answer: Callable[[object], object] = id) -> Any:
            page.expose_function("answer", lambda asked: answer(asked))
            document = gallery.page(outputs, style, f'class="{kind.classes}"')
            page.route(
                URL,
                lambda route: route.fulfill(
                    body=document,
                    content_type="text/html",
                    headers={"Content-Security-Policy": POLICY},
                ),
            )
            page.goto(URL)
            return page

        yield opened
        # The policy is in force, and refused nothing but this.
        assert refused == []
        page.evaluate("() => fetch('http://127.0.0.1:9/').catch(() => null)")
        page.wait_for_timeout(50)
        assert refused == ["connect-src http://127.0.0.1:9/"]


def fill(page: Any, selector: str) -> str:
    shape = page.locator(selector).first
    return str(shape.evaluate("shape => getComputedStyle(shape).fill"))


def test_displays_and_drawings_have_the_colours_of_vs_codes_theme(
    webview: Any, theme: str, displays: dict[str, str], drawings: dict[str, str], shoot: Any
) -> None:
    page = webview({**drawings, **displays})
    kind = THEMES[theme]
    ground = {
        "dark": "rgb(13, 17, 23)",
        "light": "rgb(255, 255, 255)",
        "high-contrast": "rgb(0, 0, 0)",
        "high-contrast-light": "rgb(255, 255, 255)",
    }[theme]
    assert fill(page, "svg.rsock > rect") == ground
    if kind.high:
        assert (
            fill(page, "svg.rsock .f-ink")
            == {
                "dark": "rgb(255, 255, 255)",
                "light": "rgb(0, 0, 0)",
            }[kind.scheme]
        )
    assert low_contrast(page, high=kind.high) == []
    shoot(page, f"vscode-{theme}", "main", schemes=(OTHER[kind.scheme],))


@pytest.mark.parametrize(
    ("theme", "ground"),
    [
        *((theme, "") for theme in THEMES),
        ("dark", "cell-output-ipywidget-background"),
        ("high-contrast", "cell-output-ipywidget-background"),
    ],
)
def test_the_live_view_stands_out_from_what_is_behind_it(
    ground: str, webview: Any, theme: str, shoot: Any
) -> None:
    """Behind it is the white of the Jupyter extension, or the colour of the theme."""
    kind = THEMES[theme]
    with Server(name="live") as server, dial(server.address) as peer:
        assert says_back(peer)
        page = webview({"live": live_view(ground)}, lambda asked: _watch.answer(server, asked))
        view = page.locator(".rsock-watch")
        view.get_by_role("cell", name=f"127.0.0.1:{peer.getsockname()[1]}").wait_for()
        for fault in ("nonsense:1", "latency:0.001"):
            view.get_by_label("A fault").fill(fault)
            view.get_by_role("button", name="add fault").click()
        view.locator("code", has_text="latency").wait_for()
        scheme = "light" if ground else kind.scheme
        page.locator(f".rsock-watch[data-scheme={scheme}]").wait_for()
        assert low_contrast(page, within=".rsock-watch") == []
        name = f"vscode-{theme}-live-{'white' if ground else 'plain'}"
        shoot(page, name, ".rsock-watch", schemes=(OTHER[kind.scheme],))


@pytest.mark.parametrize(("ink", "scheme"), [("#cccccc", "dark"), ("#3b3b3b", "light")])
def test_the_live_view_in_a_frame_that_is_see_through_follows_its_text(
    ink: str, scheme: str, browser: Any
) -> None:
    """As in VS Code, where the ground is that of the editor, outside the frame."""
    inside = f'<body style="color: {ink}">' + live_view("")
    with Server() as server, browser.new_page(color_scheme=OTHER[scheme]) as page:
        page.expose_function("answer", lambda message: _watch.answer(server, message))
        page.set_content(f'<iframe srcdoc="{html.escape(inside)}"></iframe>')
        view = page.frame_locator("iframe").locator(f".rsock-watch[data-scheme={scheme}]")
        view.get_by_text("serving").wait_for()
