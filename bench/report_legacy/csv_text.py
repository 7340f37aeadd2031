"""CSV that is the same bytes everywhere and that a spreadsheet reads as text and numbers, not as formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from bench.report_legacy.wording import plain

# A spreadsheet takes a cell that begins so for a formula; an apostrophe in front makes it text ("CSV Injection",
# OWASP).
FORMULA = ("=", "+", "-", "@")


def csv_text(heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A table with its heads; None is an empty cell."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(heads)
    table.writerows([_cell(value) for value in line] for line in lines)
    return text.getvalue()


def _cell(value: Any) -> Any:
    # Nine digits hide the last bit, in which two builds of a numerical library may differ.
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, str):
        text = plain(value)
        return f"'{text}" if text.startswith(FORMULA) else text
    return value
