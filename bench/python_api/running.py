"""``bench.run``: the command line's verb for Python."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bench.cli import parse
from bench.cli.run import requests
from bench.errors import UserError
from bench.planning.plan import plan

if TYPE_CHECKING:
    import pandas as pd


def run(**flags: Any) -> pd.DataFrame:
    """Compute a grid as ``bench run`` does and return the records of its students, those that failed among them.

    The command runs in a process of its own, so that a script needs no ``if __name__ == "__main__"``.

    Args:
        flags: the flags of ``bench run``, with ``_`` for ``-``: lists for lists (``ipc=[1, 10]``), True for flags
            without a value (``no_baselines=True``), and for ``set`` a mapping (``set={"protocol.epochs": 30}``).

    Returns:
        One row per student, as of ``bench.load_results``; none after ``dry_run=True`` on a new store.

    Raises:
        UserError: an unknown flag, or what the command line ends with exit code 2 for.
    """
    from bench.report.results import load_results, to_frame

    given = [word for name, value in flags.items() for word in words(name, value)]
    arguments = parse(["run", *given])
    cells = [cell.id for request in requests(arguments) for cell in plan(request).stage("evaluate")]
    command = [sys.executable, "-m", "bench", "run", *given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            sys.stdout.write(line)
        errors = process.stderr.read()
    if process.returncode not in (0, 1):
        raise UserError((errors.strip().splitlines() or ["bench run was killed"])[-1].removeprefix("bench: "))
    sys.stderr.write(errors)
    if not (arguments.store / "cells").is_dir():
        return to_frame([])
    found = load_results(arguments.store)
    return found[found["cell"].isin(cells)].drop_duplicates("cell").reset_index(drop=True)


def words(name: str, value: Any) -> list[str]:
    """Return the words of a flag on the command line: ``("ipc", [1, 10])`` → ``["--ipc", "1,10"]``."""
    flag = "--" + name.replace("_", "-")
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    if isinstance(value, Mapping):
        texts = ((key, one if isinstance(one, str) else json.dumps(one)) for key, one in value.items())
        return [word for key, text in texts for word in (flag, f"{key}={text}")]
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [flag, ",".join(map(str, value))]
    return [flag, str(value)]
