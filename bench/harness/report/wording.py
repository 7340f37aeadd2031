"""How names and numbers are worded on a board: safe in a Markdown table, short, the same on every machine."""

from __future__ import annotations

import re

NONE = "—"  # not measured
JOINED = "\u00a0"  # no-break space: a narrow cell breaks before the ±, never after it
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# Markdown's own signs; an underscore or a tilde inside a word means nothing there and stays legible.
_SIGNS = re.compile(r"[\\`*\[\]|$#]|(?<![^\W_])[_~]|[_~](?![^\W_])")


def plain(text: str) -> str:
    """One line of printable characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def escape(text: str) -> str:
    """Any text as Markdown that shows exactly it, in a table cell too: no markup, no HTML, one line."""
    escaped = _SIGNS.sub(lambda found: "\\" + found[0], plain(text))
    return re.sub("[&<>]", lambda found: _HTML[found[0]], escaped)


def code(text: str) -> str:
    """An identifier as inline code; a backtick in it becomes an apostrophe."""
    return f"`{plain(text).replace('`', chr(39))}`"


def superscript(number: int) -> str:
    """A footnote's mark."""
    return str(number).translate(_SUPERSCRIPT)


def letter(index: int) -> str:
    """0 → a, 25 → z, 26 → aa, ..."""
    return (letter(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


def percent(fraction: float | None) -> str:
    """A fraction in percent, one decimal, without the sign."""
    return NONE if fraction is None else f"{100 * fraction:.1f}"


def size(count: int | None) -> str:
    """Bytes for people, in powers of 1,024: ``12.3 KiB``."""
    if count is None:
        return NONE
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1023.5:
            break
        value, unit = value / 1024, larger
    decimals = 0 if unit == "B" or value >= 99.95 else 1
    return f"{value:,.{decimals}f} {unit}"


def ratio(value: float | None) -> str:
    """Two or three figures: ``0``, ``5.4e-3``, ``0.068``, ``7.25``, ``745``."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    if value >= 99.95:
        return f"{value:,.0f}"
    if value >= 0.00995:
        return f"{value:#.3g}" if value >= 0.995 else f"{value:#.2g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def seconds(value: float | None) -> str:
    """Whole seconds from ten on, tenths below."""
    if value is None:
        return NONE
    return f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def plural(count: int, noun: str) -> str:
    """``1 image``, ``2 images``, ``1,000 images``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
