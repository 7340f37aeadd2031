"""SVGs that say what they were drawn from: whether one is still right can be told without drawing it again.

The last line of a sealed SVG is a comment with two digests: of the facts it shows together with the code that draws
them, and of all lines before. The version of the drawing library is in neither, so that another one is no reason to
draw again; a changed number, title or line of code is, and so is an edit by hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

DIGITS = 32  # of a digest


def facts_digest(facts: Iterable[str]) -> str:
    """The digest of what a plot shows and of the code of this package."""
    return _digest("\0".join([_code(), *facts]))


@cache
def _code() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return _digest("\0".join(source.read_text("utf-8") for source in sources))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:DIGITS]


def seal(svg: str, facts: str) -> bytes:
    """The SVG with its last line."""
    return f"{svg}<!-- {facts} {_digest(svg)} -->\n".encode()


def sealed(data: bytes) -> str | None:
    """The digest of the facts of a sealed SVG; None where the seal is missing or broken."""
    svg, found, last = data.decode("utf-8", "replace").rpartition("<!-- ")
    words = last.split()
    return words[0] if found and len(words) == 3 and words[1:] == [_digest(svg), "-->"] else None
