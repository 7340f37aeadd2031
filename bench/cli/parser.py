"""argparse whose complaints are one line with the nearest valid choice, and the types of our flags."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable
from typing import NoReturn

from bench.errors import UserError
from bench.planning.variants import split


class Parser(argparse.ArgumentParser):
    """Raises :class:`UserError` where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        words = message.removeprefix("unrecognized arguments: ").split()
        hint = ""
        if message.startswith("unrecognized arguments"):
            known = [option for action in self._actions for option in action.option_strings]
            for action in self._actions:
                if isinstance(action, argparse._SubParsersAction):
                    known += [o for verb in action.choices.values() for a in verb._actions for o in a.option_strings]
            hint = _nearest(words[0], known)
        elif "invalid choice" in message:
            wrong = message.partition("invalid choice: ")[2].partition(" ")[0].strip("'")
            for action in self._actions:
                if action.choices is not None:
                    hint = hint or _nearest(wrong, [str(choice) for choice in action.choices])
        raise UserError(f"{message}{hint}; see {self.prog} --help")


def _nearest(word: str, known: list[str]) -> str:
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {found[0]}?)" if found else ""


def names(text: str) -> tuple[str, ...]:
    """``hello,rded`` → a tuple without repeats; commas inside of brackets belong to a name."""
    found = tuple(dict.fromkeys(split(text)))
    if not found:
        raise argparse.ArgumentTypeError("expected names separated by commas")
    return found


def numbers(what: str) -> Callable[[str], tuple[int, ...]]:
    """Return an argument type for lists of whole numbers, ``1,10,50``."""

    def parse(text: str) -> tuple[int, ...]:
        try:
            found = tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip()))
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {what} separated by commas, not {text!r}") from None
        if not found:
            raise argparse.ArgumentTypeError(f"expected {what} separated by commas")
        return found

    return parse


def positive(text: str) -> int:
    """Parse a whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, not {text!r}")
    return number
