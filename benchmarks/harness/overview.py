"""Draws one run in one small chart: a bar a scenario, rsock beside its best peer.

Must never choose what is shown by how it turned out: every scenario with a peer has its bar.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from harness.plot import BASE, OTHERS, OURS
from harness.report import Line

# Loops that show what the kernel charges; they are no servers to choose.
FLOORS = ("floor", "recvmmsg")
NO_PEERS = (*FLOORS, "splice", "recvfrom", "bare-thread", "asyncio-one-loop", "rsock", "floor, ")
# A bar that is longer ends here, and its number tells the rest.
LONGEST = 1.6
WIDTH, ROW_HEIGHT, FRAME = 8.4, 0.2, 0.75


def draw_overview(path: Path, lines: Sequence[Line], caption: str) -> None:
    """Writes an SVG of the costs of rsock, where those of the best peer of each scenario are 1."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "rsock", "font.size": 8})
    rows: dict[str, list[Line]] = {}
    for line in lines:
        rows.setdefault(line.row, []).append(line)
    bars = [bar for row in rows.values() if (bar := _bar(row))]
    figure = Figure(figsize=(WIDTH, len(bars) * ROW_HEIGHT + FRAME), layout="constrained")
    axes = figure.subplots()
    titles = [title for title, *_ in bars]
    costs = [min(cost, LONGEST) for _, cost, *_ in bars]
    axes.barh(titles, costs, height=0.66, color=OURS)
    for at, (_, _, floor, text) in enumerate(bars):
        if floor is not None:
            axes.plot([floor, floor], [at - 0.42, at + 0.42], color=BASE, linewidth=1.4)
        axes.text(LONGEST + 0.02, at, text, va="center", fontsize=7, color=BASE)
    axes.axvline(1.0, color=OTHERS, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.set_xlim(0.0, LONGEST)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xticks([0.0, 0.5, 1.0, 1.5], ["0", "0.5", "best peer", "1.5"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=2)
    axes.set_title(
        "cost of rsock, as a share of the best peer's (shorter is better); dark mark: bare loop",
        fontsize=8,
        loc="right",
    )
    figure.supxlabel(caption, fontsize=6.5, color=BASE)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _bar(row: list[Line]) -> tuple[str, float, float | None, str] | None:
    """Title, cost, cost of the floor, and the figures; None for a scenario without a peer."""
    ours = next((line for line in row if line.contender in ("rsock", "rsock.Client")), None)
    peers = [
        line
        for line in row
        if not line.contender.startswith(NO_PEERS) and not line.contender.endswith(" again")
    ]
    if ours is None or not peers:
        return None
    best = min(peers, key=_cost)
    floor = next((line for line in row if line.contender in FLOORS), None)
    form = ",.0f" if max(ours.figure.median, best.figure.median) >= 1_000 else ",.3g"
    figures = f"{ours.figure.median:{form}} : {best.figure.median:{form}}"
    text = f"{figures} {ours.unit.removeprefix('CPU ')}, {best.contender}"
    # Idle connections cost a bare loop nothing that can be drawn.
    mark = _cost(floor) / _cost(best) if floor and floor.figure.median > 0 else None
    return ours.title, _cost(ours) / _cost(best), mark, text


def _cost(line: Line) -> float:
    """The figure, or for one that is better when it is higher its inverse."""
    return 1 / line.figure.median if line.unit.endswith("/s") else line.figure.median
