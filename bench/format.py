"""Names and numbers as text: safe in Markdown and CSV, short, the same on every machine."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

NONE = "—"  # not measured
NO_BREAK = "\u00a0"
LONGEST = 72  # characters of a name in a table
LONG_WORD = 20  # characters of a word that never breaks
PIECE = 6  # of a longer one
LONGEST_SLUG = 80  # characters; file systems take 255 bytes with what is put before and after
# A spreadsheet takes a cell that begins so for a formula; an apostrophe in front makes it text ("CSV Injection", OWASP)
FORMULA = ("=", "+", "-", "@")
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# Markdown's own signs; an underscore or a tilde inside a word means nothing there and stays legible.
_SIGNS = re.compile(r"[\\`*\[\]|$#]|(?<![^\W_])[_~]|[_~](?![^\W_])")
_JOINTS = re.compile(r"(?<=[+:/,_=])")  # behind one of these a long word breaks first


def plain(text: str) -> str:
    """One line of printable characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def escape(text: str) -> str:
    """Any text as Markdown that shows exactly it, in a table cell too: no markup, no HTML, one line."""
    escaped = _SIGNS.sub(lambda found: "\\" + found[0], plain(text))
    return re.sub("[&<>]", lambda found: _HTML[found[0]], escaped)


def code(text: str) -> str:
    """Inline code of an identifier; a backtick in it becomes an apostrophe."""
    return f"`{plain(text).replace('`', chr(39))}`"


def name(text: str) -> str:
    """Name as Markdown for a table cell: cut where it is very long.

    Long words may break, first where the benchmark's own names have joints, so that no table is wider than a page.
    """
    text = plain(text)
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return " ".join("<wbr>".join(map(escape, _pieces(word))) for word in text.split(" "))


def _pieces(word: str) -> list[str]:
    if len(word) <= LONG_WORD:
        return [word]
    joints = [piece for piece in _JOINTS.split(word) if piece]
    return [piece[at : at + PIECE] for piece in joints for at in range(0, len(piece), PIECE)]


def slug(text: str) -> str:
    """Name as a file name; a digest keeps changed names (slashes, very long ones) apart."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:LONGEST_SLUG]
    return stem if stem == text else f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".lstrip("-")


def unbroken(text: str) -> str:
    """Text without line breaks in a narrow cell."""
    return text.replace(" ", NO_BREAK)


def superscript(number: int) -> str:
    """Mark of a footnote."""
    return str(number).translate(_SUPERSCRIPT)


def plural(count: int, noun: str) -> str:
    """``1 image``, ``2 images``, ``1,000 images``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def listed(parts: Sequence[str]) -> str:
    """``1``, ``1 and 10``, ``1, 10 and 50``."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def percent(fraction: float | None) -> str:
    """Fraction in percent, one decimal, without the sign."""
    return NONE if fraction is None else f"{100 * fraction:.1f}"


def points(fraction: float) -> str:
    """Difference of fractions in points, signed, with a true minus."""
    return f"{100 * fraction + 0.0:+.1f}".replace("-", "−").replace("−0.0", "+0.0")


def accuracy(mean: float | None, std: float | None) -> str:
    """Mean ± standard deviation in percent."""
    return percent(mean) if mean is None or std is None else unbroken(f"{percent(mean)} ± {percent(std)}")


def size(count: int | None) -> str:
    """Bytes in powers of 1,024: ``12.3 KiB``."""
    if count is None:
        return NONE
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1023.5:
            break
        value, unit = value / 1024, larger
    decimals = 0 if unit == "B" or value >= 99.95 else 1
    return f"{value:,.{decimals}f} {unit}"


def duration(seconds: float) -> str:
    """75 → ``1 min 15 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days = f"{hours // 24} d {hours % 24} h" if hours >= 48 else ""
    return days or (f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s")


def round_size(count: int) -> str:
    """Round number of bytes: ``10 KiB``, not ``10.0 KiB``."""
    return size(count).replace(".0 ", " ")


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


def markdown_table(rows: Sequence[Mapping[str, str]], left: Collection[str] = (), rare: Collection[str] = ()) -> str:
    """Pipe table, aligned in the source, too.

    Args:
        rows: header → cell, both as Markdown on one line.
        left: columns aligned left; the others are aligned right.
        rare: columns that are left out where no row has a value.
    """
    from tabulate import tabulate

    shown = [head for head in rows[0] if head not in rare or any(row[head] not in (NONE, "") for row in rows)]
    sides = ["left" if head in left else "right" for head in shown]
    cells = [[row[head] for head in shown] for row in rows]
    return str(tabulate(cells, shown, tablefmt="pipe", disable_numparse=True, colalign=sides))


def csv_text(heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """CSV that is the same bytes everywhere and that a spreadsheet reads as text and numbers; None: an empty cell."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(heads)
    table.writerows([_cell(value) for value in line] for line in lines)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):  # nine digits hide the last bit, in which two builds of a numerical library may differ
        return f"{value:.9g}"
    if isinstance(value, str):
        text = plain(value)
        return f"'{text}" if text.startswith(FORMULA) else text
    return value
