"""Running a suite without pytest: what ``bench check`` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import SkipTest

from bench.errors import UserError
from bench.kit.validation import InvalidResult


@dataclass(frozen=True)
class Outcome:
    """One finished test; ``reason`` says why it failed, or why it does not apply (``passed`` is None)."""

    title: str
    passed: bool | None
    seconds: float
    reason: str = ""


def run(suite: type[Any], begin: Callable[[str], None] = lambda title: None) -> Iterator[Outcome]:
    """Run the tests of a suite in their order; what raises has failed.

    Args:
        begin: called with the title of each test before it runs.

    Raises:
        UserError: the plug-in cannot be used or refuses the grid point.
    """
    suite.setup_class()
    try:
        for name in members(suite):
            begin(title := name.removeprefix("test_").replace("_", " "))
            started = time.monotonic()
            passed, reason = _result(getattr(suite(), name))
            yield Outcome(title, passed, time.monotonic() - started, reason)
    finally:
        suite.teardown_class()


def members(suite: type[Any]) -> list[str]:
    """Return the names of a suite's tests, base classes first."""
    found = (name for kind in reversed(suite.__mro__) for name in vars(kind) if name.startswith("test_"))
    return list(dict.fromkeys(found))


def _result(test: Callable[[], None]) -> tuple[bool | None, str]:
    try:
        test()
    except SkipTest as skipped:
        return None, str(skipped)
    except (AssertionError, InvalidResult, UserError) as error:
        return False, str(error)
    except Exception as error:
        return False, f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
    return True, ""
