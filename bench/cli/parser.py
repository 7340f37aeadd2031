"""argparse whose complaints are one line with the nearest valid choice, and the types of our flags."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from bench.errors import UserError, printable
from bench.planning.variants import split


class Parser(argparse.ArgumentParser):
    """Raises :class:`UserError` where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        known, actions = [], list(self._actions)
        _, unrecognized, wrong = message.partition("unrecognized arguments: ")
        if unrecognized:
            for action in self._actions:
                if isinstance(action, argparse._SubParsersAction):
                    actions += [one for verb in action.choices.values() for one in verb._actions]
            known = [option for action in actions for option in action.option_strings]
        elif wrong := message.partition("invalid choice: ")[2]:
            known = [str(choice) for action in actions for choice in action.choices or ()]
        found = difflib.get_close_matches(wrong.partition(" ")[0].strip("'"), known, n=1, cutoff=0.5)
        raise UserError(f"{message}{f' (did you mean {found[0]}?)' if found else ''}; see {self.prog} --help")


def names(text: str) -> tuple[str, ...]:
    """``hello,rded`` → a tuple without repeats; commas inside of brackets belong to a name."""
    found = tuple(dict.fromkeys(split(text)))
    if not found:
        raise argparse.ArgumentTypeError("expected names separated by commas")
    return found


def numbers(what: str) -> Callable[[str], tuple[int, ...]]:
    """Return an argument type for lists of whole numbers, ``1,10,50``."""

    def parse(text: str) -> tuple[int, ...]:
        with suppress(ValueError):
            if found := tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip())):
                return found
        raise argparse.ArgumentTypeError(f"expected {what} separated by commas, not {text!r}")

    return parse


def text_path(text: str) -> Path:
    """Parse a path: it goes into records and job scripts, so that it must be printable text."""
    if not text or printable(text) != text:
        raise argparse.ArgumentTypeError(f"expected a path in UTF-8 without control characters, not {text!r}")
    return Path(text)


def positive(text: str) -> int:
    """Parse a whole number from 1 on."""
    with suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, not {text!r}")
