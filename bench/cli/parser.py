"""The arguments of verbs as text, one per line as ``--help`` shows them; complaints are one line with the next step."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from bench.api import registry
from bench.errors import UserError, printable
from bench.planning.variants import split
from bench.store.cell import STAGES

STORE_VARIABLE = "DISTILL_BENCH_STORE"


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
        word = wrong.partition(" ")[0].strip("'")
        found = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
        if "--methods" in known and re.split(r"[,[]", word)[0] in registry.METHODS:
            found = [f"--methods {word}"]
        raise UserError(f"{message}{f' (did you mean {found[0]}?)' if found else ''}; see {self.prog} --help")

    def describe(self, text: str) -> None:
        """Add the arguments that a text describes, one per line: ``--flag VALUE = default  help``.

        A flag without a value is a switch. What may be written follows from the name of the value (:data:`KINDS`), or
        is ``{one,other}``; behind it ``+`` makes a flag repeatable and ``!`` needed, and an argument without a flag has
        ``?``, ``*`` and ``+`` of argparse. Flags behind ``|`` exclude each other; ``title:`` begins a group; an
        indented line goes on.
        """
        group: argparse._ActionsContainer = self
        excluding = None
        for line in filter(None, re.split(r"\n(?! )", text)):
            if line.endswith(":"):
                group = self.add_argument_group(line[:-1]) if line != "options:" else self
                continue
            excluding = (excluding or group.add_mutually_exclusive_group()) if line.startswith("| ") else None
            head, _, about = line.removeprefix("| ").partition("  ")
            head, _, default = head.partition(" = ")
            name, _, value = head.partition(" ")
            many = head[-1] if head[-1] in "?*+!" else ""
            facts: dict[str, Any] = {"help": " ".join(about.split()), "default": default or None}
            if name == "--store":
                facts["default"] = default_store()
            if not name.startswith("-"):
                value, name = value or name, name.rstrip(many).lower()
                facts |= {"nargs": many} if many else {}
            elif many:
                facts |= {"required": True} if many == "!" else {"action": "append", "default": []}
            elif not value:
                facts |= {"action": "store_true", "default": False}
            if value.startswith("{"):
                facts["choices"] = value[1:-1].split(",")
            elif value:
                value = value.rstrip(many)
                facts |= {"metavar": value, **KINDS.get(value, {})}
            (excluding or group).add_argument(name, **facts)


def default_store() -> Path:
    """Return the store of a command that names none."""
    return Path(os.environ.get(STORE_VARIABLE, ".bench"))


def names(text: str) -> tuple[str, ...]:
    """``hello,rded`` → a tuple without repeats; commas inside of brackets belong to a name."""
    found = tuple(dict.fromkeys(split(text)))
    if not found:
        raise argparse.ArgumentTypeError("expected names separated by commas")
    return found


def numbers(text: str) -> tuple[int, ...]:
    """``1,10,50`` → a tuple without repeats."""
    with suppress(ValueError):
        if found := tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip())):
            return found
    raise argparse.ArgumentTypeError(f"expected whole numbers separated by commas, not {text!r}")


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


def gigabytes(text: str) -> float:
    """Parse an amount of memory."""
    with suppress(ValueError):
        if 0 < (number := float(text)) < float("inf"):
            return number
    raise argparse.ArgumentTypeError(f"expected gigabytes above 0, not {text!r}")


_TYPES: dict[Callable[[str], Any], tuple[str, ...]] = {
    names: ("NAME,…", "CHOICE,…"),
    numbers: ("N,…",),
    text_path: ("PATH", "DIR", "FOLDER", "FILE.png"),
    positive: ("N", "PX", "MINUTES", "LINES"),
    gigabytes: ("GB",),
}
KINDS: dict[str, dict[str, Any]] = {
    **{value: {"type": kind} for kind, values in _TYPES.items() for value in values},
    "STAGE": {"choices": STAGES},
}
