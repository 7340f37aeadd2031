"""matplotlib's SVG → one that reads well on light and dark pages, says its numbers to pointers and screen readers,
and doesn't depend on the last bits of a machine's arithmetic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree as Tree

from bench.report_legacy.plots.style import INK, PAPER

SVG = "http://www.w3.org/2000/svg"
LINK = "http://www.w3.org/1999/xlink"
_NUMBER = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")
_GEOMETRY = ("d", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "transform", "points", "cx", "cy", "r")
# Where DejaVu is not installed, a face that is no wider.
_FONTS = ("'DejaVu Sans'", "'DejaVu Sans', Verdana, Arial, sans-serif")
# A page that shows the SVG inline sets the variables; anywhere else it is dark ink on white paper.
_ROOT = "color: #1f2328; color: var(--plot-ink, #1f2328); stroke-linejoin: round; stroke-linecap: butt"
_PAPER = "fill: #ffffff; fill: var(--plot-paper, #ffffff)"


def polish(text: str, title: str, description: str, tips: Mapping[str, str]) -> str:
    """The SVG with ink and paper that a page can set, tooltips, and coordinates to a hundredth of a point.

    Args:
        text: an SVG that matplotlib wrote.
        title, description: for screen readers.
        tips: id of a group -> its tooltip.
    """
    Tree.register_namespace("", SVG)
    Tree.register_namespace("xlink", LINK)
    root = Tree.fromstring(text)
    # Its style sheet would hold for a whole page; what it says is inherited from the root as well.
    for aside in [
        node for node in root if node.find(f"{{{SVG}}}style") is not None or node.tag == f"{{{SVG}}}metadata"
    ]:
        root.remove(aside)
    used = {value.lstrip("#") for node in root.iter() for value in _references(node)}
    for node in root.iter():
        # A line an element, without the spaces before it: a third less, and still a diff that can be read.
        node.text = node.text if node.text and node.text.strip() else None
        node.tail = "\n"
        name = node.get("id", "")
        if name in tips:
            Tree.SubElement(node, f"{{{SVG}}}title").text = tips[name]
            node.insert(0, node[-1])
            del node[-1]
        if name and name not in used:
            del node.attrib["id"]
        if "style" in node.attrib:
            style = node.attrib["style"].replace(f"fill: {PAPER}", _PAPER).replace(INK, "currentColor")
            node.attrib["style"] = style.replace(*_FONTS)
        for key in _GEOMETRY:
            if key in node.attrib:
                node.attrib[key] = " ".join(_NUMBER.sub(_rounded, node.attrib[key]).split())
    for tag, content in (("desc", description), ("title", title)):
        element = Tree.Element(f"{{{SVG}}}{tag}")
        element.text = content
        root.insert(0, element)
    root.tail = None
    root.attrib |= {"role": "img", "aria-label": title, "style": _ROOT}
    return Tree.tostring(root, encoding="unicode") + "\n"


def _references(node: Tree.Element) -> list[str]:
    found = [node.get(f"{{{LINK}}}href", "")]
    return found + re.findall(r"url\(#([^)]+)\)", node.get("clip-path", "") + node.get("style", ""))


def _rounded(found: re.Match[str]) -> str:
    return f"{round(float(found[0]), 2) + 0.0:g}" if abs(float(found[0])) < 1e4 else f"{float(found[0]):.2f}"
