"""Draws the figures of one run: a panel a scenario, a bar a contender.

Must never judge, nor measure.
"""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report import Line

# rsock; what it is compared with; and the base of the comparison.
OURS, OTHERS, BASE = "#c2410c", "#94a3b8", "#475569"
PANEL_WIDTH, BAR_HEIGHT, PANEL_FRAME = 4.6, 0.26, 0.9
COLUMNS = 2


def draw(path: Path, lines: list[Line], caption: str) -> None:
    """Writes an SVG in which text stays text, identical for identical figures."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "rsock", "font.size": 8})
    rows: dict[str, list[Line]] = {}
    for line in lines:
        rows.setdefault(line.row, []).append(line)
    panels = list(rows.values())
    pairs = [panels[at : at + COLUMNS] for at in range(0, len(panels), COLUMNS)]
    heights = [max(len(panel) for panel in pair) * BAR_HEIGHT + PANEL_FRAME for pair in pairs]
    figure = Figure(figsize=(COLUMNS * PANEL_WIDTH, sum(heights) + 0.3), layout="constrained")
    axes = figure.subplots(len(pairs), COLUMNS, squeeze=False, height_ratios=heights)
    for pair, places in zip(pairs, axes, strict=True):
        for place in places[len(pair) :]:
            place.set_axis_off()
        for panel, place in zip(pair, places, strict=False):
            _panel(place, panel)
    figure.supxlabel(caption, fontsize=7, color=BASE)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _panel(axes: Axes, lines: list[Line]) -> None:
    names = [line.contender for line in lines]
    medians = [line.figure.median for line in lines]
    spans = [
        [max(0.0, line.figure.median - line.figure.min) for line in lines],
        [max(0.0, line.figure.max - line.figure.median) for line in lines],
    ]
    axes.barh(names, medians, height=0.7, color=[_color(line) for line in lines])
    axes.errorbar(medians, names, xerr=spans, fmt="none", ecolor=BASE, elinewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_title(lines[0].title, fontsize=8, loc="left")
    axes.set_xlabel(lines[0].unit, fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=2)


def _color(line: Line) -> str:
    if line.contender.startswith("rsock"):
        return OURS
    return OTHERS if line.against else BASE
