"""How well the texts of a page stand out from what is behind them.

axe judges the texts of HTML, and this file those of drawings, of which axe knows nothing. Must
never take a page without texts for one whose texts are right.
"""

from __future__ import annotations

import importlib
from typing import Any

# What WCAG 2.2 asks of texts: 1.4.3 (AA), and 1.4.6 (AAA), which is for high contrast.
LEAST, HIGH = 4.5, 7.0

# Why axe does not judge a text: the place of a wide table cuts it until it is scrolled, or an
# element of the page that is see-through is over it, as in marimo.
UNJUDGED = {"elmPartiallyObscured", "elmPartiallyObscuring", "outsideViewport", "bgOverlap"}

# For each text of a drawing, its contrast with the last shape before it that is behind its centre.
DRAWN = """
() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const parts = [...pen.getImageData(0, 0, 1, 1).data];
    if (parts[3] !== 255) throw new Error(`${colour} is not opaque`);
    const [red, green, blue] = parts.map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  // A pattern counts as the colour under its lines.
  const fill = (shape) => {
    const found = getComputedStyle(shape).fill;
    const pattern = found.match(/^url\\("?#([^")]+)/);
    return pattern ? fill(document.getElementById(pattern[1]).querySelector("rect")) : found;
  };
  const texts = [];
  for (const svg of document.querySelectorAll("svg.rsock")) {
    const shapes = [];
    for (const each of svg.querySelectorAll("rect, circle, polygon, path, text")) {
      if (each.closest("defs")) continue;
      const box = each.getBoundingClientRect();
      if (each.tagName !== "text") {
        if (getComputedStyle(each).fill !== "none") shapes.push([box, each]);
        continue;
      }
      const x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;
      const [, behind] = shapes.findLast(
        ([of]) => of.left <= x && x <= of.right && of.top <= y && y <= of.bottom);
      const [less, more] = [light(fill(each)), light(fill(behind))].sort((a, b) => a - b);
      texts.push([(more + 0.05) / (less + 0.05), each.textContent, fill(each), fill(behind)]);
    }
  }
  return texts;
}
"""


def low_contrast(page: Any, *, high: bool = False, within: str = "body") -> list[Any]:
    """The texts of a page whose contrast is too low: those of HTML, then those of drawings."""
    axe: Any = importlib.import_module("axe_playwright_python.sync_playwright").Axe()
    # The rows of a table are alike, and axe takes milliseconds for each text.
    context = {"include": [[within]], "exclude": [["svg"], ["tbody tr:nth-child(n + 4)"]]}
    # A rule that is named runs also where it is off, as the enhanced one is.
    rule = "color-contrast-enhanced" if high else "color-contrast"
    options = {"runOnly": {"type": "rule", "values": [rule]}}
    told = axe.run(page, context=context, options=options).response
    # axe says of some texts that it cannot tell.
    judged, unknown, wrong = (
        [node for fault in told[kind] for node in fault["nodes"]]
        for kind in ("passes", "incomplete", "violations")
    )
    assert len(judged) + len(wrong) > 5
    written = [
        (node["target"], node["any"][0]["message"])
        for node in (*wrong, *unknown)
        if node["any"][0]["data"]["messageKey"] not in UNJUDGED
    ]
    drawn = page.evaluate(DRAWN)
    return written + [text for text in drawn if text[0] < (HIGH if high else LEAST)]
