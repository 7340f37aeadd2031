"""How names and numbers are worded on a board: safe in a Markdown table, short, the same on every machine."""

from __future__ import annotations

import re

from bench.report_legacy.statistics import Summary

NONE = "—"  # not measured
JOINED = "\u00a0"  # no-break space
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# Markdown's own signs; an underscore or a tilde inside a word means nothing there and stays legible.
_SIGNS = re.compile(r"[\\`*\[\]|$#]|(?<![^\W_])[_~]|[_~](?![^\W_])")
LONGEST = 72  # characters of a name in a table
LONG_WORD = 20  # characters of a word that never breaks
PIECE = 6  # of a longer one
_JOINTS = re.compile(r"(?<=[+:/,_=])")  # behind one of these a long word breaks first


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


def name(text: str) -> str:
    """A name as Markdown for a table cell: cut where it is very long, and long words may break, so that a table is
    never wider than a page. A word breaks where the benchmark's own names have joints, else anywhere."""
    text = plain(text)
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return " ".join("<wbr>".join(map(escape, _pieces(word))) for word in text.split(" "))


def _pieces(word: str) -> list[str]:
    if len(word) <= LONG_WORD:
        return [word]
    joints = [piece for piece in _JOINTS.split(word) if piece]
    return [piece[at : at + PIECE] for piece in joints for at in range(0, len(piece), PIECE)]


def joined(text: str) -> str:
    """The text in one piece: a narrow cell does not break it."""
    return text.replace(" ", JOINED)


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


def round_size(count: int) -> str:
    """A round number of bytes: ``10 KiB``, not ``10.0 KiB``."""
    return size(count).replace(".0 ", " ")


def accuracy(summary: Summary) -> str:
    """Mean ± standard deviation in percent; :data:`NONE` of nothing."""
    text = percent(summary.mean)
    return text if summary.std is None else joined(f"{text} ± {percent(summary.std)}")


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


def score(value: float | None) -> str:
    """A number between 0 and 1, three decimals."""
    return NONE if value is None else f"{value:.3f}"


def p_value(value: float | None) -> str:
    """Two figures down to a thousandth: ``1``, ``0.35``, ``0.013``, ``<0.001``."""
    if value is None:
        return NONE
    if value >= 0.995:
        return "1"
    return f"{value:.2f}" if value >= 0.0995 else f"{value:.3f}" if value >= 0.001 else "<0.001"


def plural(count: int, noun: str) -> str:
    """``1 image``, ``2 images``, ``1,000 images``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
