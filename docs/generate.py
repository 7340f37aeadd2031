"""What the site takes from the code: tables of plug-ins, the help of every verb, and the committed boards.

A line ``<!-- bench list methods -->`` of a page becomes that table, ``<!-- bench run --help -->`` that text, and
``<!-- bench --help -->`` the text of all verbs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from tabulate import tabulate

from bench.cli import VERBS, command_line
from bench.cli.list import TABLES

ROOT = Path(__file__).parents[1]
BOARDS = ("digits", "fashion-mnist", "icons-100")


def on_files(files: Files, config: Any) -> Files:
    """Add the committed boards, with their figures and records, and the benchmarks."""
    for name in BOARDS:
        home = ROOT / "leaderboards"
        for path in [*home.glob(f"{name}.*"), *(home / name).glob("*.[sp][vn]g")]:
            files.append(File.generated(config, str(path.relative_to(ROOT)), abs_src_path=str(path)))
    files.append(File.generated(config, "perf.md", abs_src_path=str(ROOT / "perf" / "README.md")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what is generated."""
    return re.sub(r"^<!-- bench (.+?) -->$", lambda found: _filled(found[1]), markdown, flags=re.MULTILINE)


def _filled(words: str) -> str:
    if words.startswith("list "):
        columns, rows, right = TABLES[words.removeprefix("list ")]()
        rows = [[f"`{row[0]}`", *row[1:]] for row in rows]
        return tabulate(
            rows, columns, tablefmt="pipe", colalign=["right" if one in right else "left" for one in columns]
        )
    os.environ["COLUMNS"] = "96"
    (verbs,) = (action.choices for action in command_line()._actions if action.dest == "verb")
    names = VERBS if words == "--help" else [words.split()[0]]
    return "\n\n".join(f"## bench {name}\n\n```text\n{verbs[name].format_help()}```" for name in names)
