"""Running a suite without pytest: what ``bench check`` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from traceback import walk_tb
from typing import ClassVar, TypeVar
from unittest import SkipTest

from bench.api import Progress
from bench.errors import UserError
from bench.kit.validation import InvalidResult

T = TypeVar("T")
EVERY = 5.0


class Suite:
    """The base of every suite, which pytest or :func:`run` sets up and tears down: a temporary folder."""

    _folder: ClassVar[TemporaryDirectory[str]]

    @classmethod
    def setup_class(cls) -> None:
        """Make the folder."""
        cls._folder = TemporaryDirectory()

    @classmethod
    def teardown_class(cls) -> None:
        """Remove the folder."""
        cls._folder.cleanup()


def killed_after(
    calls: int | None, seen: list[tuple[int, int]] | None = None, keep: Callable[[], None] = lambda: None
) -> Progress:
    """Return a progress callback that stops a stage as a kill would.

    Args:
        calls: after so many calls; None: never.
        seen: collects the (done, total) of every call.
        keep: called every ``EVERY`` seconds of the processor, but not at the end.
    """
    kept = time.process_time()
    count = 0

    def progress(done: int, total: int, **_: float) -> None:
        nonlocal count, kept
        count += 1
        if done < total and time.process_time() >= kept + EVERY:
            keep()
            kept = time.process_time()
        if seen is not None:
            seen.append((done, total))
        if calls is not None and count > calls:
            raise KeyboardInterrupt

    return progress


def resumed(stage: Callable[[str, int | None], T], stop_after: int = 1) -> T:
    """Kill a stage after so many progress calls and run it again in the same work folder, whose name it is given."""
    with suppress(KeyboardInterrupt):
        stage(f"{stage.__name__}-killed", stop_after)
    return stage(f"{stage.__name__}-killed", None)


@dataclass(frozen=True)
class Outcome:
    """One finished test; ``reason`` says why it failed, or why it does not apply (``passed`` is None)."""

    title: str
    passed: bool | None
    seconds: float
    reason: str = ""


def run(suite: type[Suite], begin: Callable[[str], None] = lambda title: None) -> Iterator[Outcome]:
    """Run the tests of a suite in their order; what raises has failed, or not run where an earlier one failed so.

    Args:
        begin: called with the title of each test before it runs.

    Raises:
        UserError: the plug-in cannot be used or refuses the grid point.
    """
    suite.setup_class()
    told: dict[str, str] = {}  # reason -> the test that failed of it
    try:
        for name in members(suite):
            begin(title := name.removeprefix("test_").replace("_", " "))
            started = time.monotonic()
            passed, reason = _result(suite, name)
            if passed is False and reason and told.setdefault(reason, title) != title:
                passed, reason = None, f"not run: stopped by what {told[reason]!r} says"
            yield Outcome(title, passed, time.monotonic() - started, reason)
    finally:
        suite.teardown_class()


def members(suite: type[Suite]) -> list[str]:
    """Return the names of a suite's tests, base classes first."""
    found = (name for kind in reversed(suite.__mro__) for name in vars(kind) if name.startswith("test_"))
    return list(dict.fromkeys(found))


def _result(suite: type[Suite], name: str) -> tuple[bool | None, str]:
    try:
        getattr(suite(), name)()
    except SkipTest as skipped:
        return None, str(skipped)
    except (InvalidResult, UserError) as error:
        return False, str(error)
    except Exception as error:
        home = type(getattr(getattr(suite, "bench", None), "method", None)).__module__.partition(".")[0]
        places = [  # lines of the method's own package
            f" ({frame.f_code.co_filename}:{line} in {frame.f_code.co_name})"
            for frame, line in walk_tb(error.__traceback__)
            if frame.f_globals.get("__name__", "").partition(".")[0] == home
        ]
        if isinstance(error, AssertionError) and not places:
            return False, str(error)
        message = (str(error).splitlines() or ["no message"])[0]
        return False, f"{type(error).__name__}: {message}{''.join(places[-1:])}"
    return True, ""
