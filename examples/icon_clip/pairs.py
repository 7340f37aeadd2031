"""Icon-name pairs to train on: every permissive icon with its name in words, less those of icons-100's concepts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from examples.icons_100.build import ICONS_100, UNSEEN_FAMILIES, family
from examples.icons_100.package import Icon, IconPackage, read_package

# Other words for an icons-100 concept: their icons are held out as well.
SYNONYMS = {
    "airplane": ("plane", "aeroplane"), "fire": ("flame",), "gamepad": ("joypad",), "leaf": ("leaves",),
    "lightbulb": ("bulb",), "lock": ("padlock", "unlock", "locked", "unlocked"), "magic-wand": ("wand",),
    "shopping-cart": ("cart", "trolley"), "sun": ("sunny", "sunrise", "sunset"), "trash": ("garbage", "bin"),
    "tv": ("television",), "car": ("automobile",), "dice": ("die",), "qr-code": ("qr",), "pencil": ("crayon",),
}  # fmt: skip

_TERMS = sorted(
    term.replace("-", "") for term in {*ICONS_100, *(word for synonyms in SYNONYMS.values() for word in synonyms)}
)
_WORDS = frozenset(term + ending for term in _TERMS for ending in ("", "s", "es"))
_ENDINGS = tuple(term + ending for term in _TERMS if len(term) >= 3 for ending in ("", "s"))
_BEGINNINGS = tuple(term for term in _TERMS if len(term) >= 4)
_PARTS = tuple(term for term in _TERMS if len(term) >= 5)


@dataclass(frozen=True)
class TrainingPairs:
    """Icons with their captions ("shopping cart"); ``unseen`` are those of the sets that icon-clip never trains on."""

    train: list[tuple[Icon, str]]
    unseen: list[tuple[Icon, str]]
    held_out: int
    package: IconPackage


def training_pairs(source: Path) -> TrainingPairs:
    """Pair every icon of the package with its name in words, and hold out the concepts of icons-100."""
    found = TrainingPairs([], [], 0, read_package(source))
    held_out = 0
    for icon in found.package.icons:
        if touches_icons_100(icon.name):
            held_out += 1
            continue
        if any(letter.isalnum() for letter in icon.concept):
            (found.unseen if family(icon.set) in UNSEEN_FAMILIES else found.train).append((icon, icon.concept))
    return TrainingPairs(found.train, found.unseen, held_out, found.package)


def touches_icons_100(name: str) -> bool:
    """Tell whether the full name of an icon has an icons-100 concept in it, digits aside ("star2").

    It has if a word of the name equals a concept, its plural or its synonym, ends in one ("fullmoon") or, from four
    letters, begins with one ("moonface"); or if a concept of five letters or more is anywhere in the name written
    without dashes ("phone" holds out "microphone"; "light-bulb" counts). Strict, so it fires by mistake too
    ("rhombus" ends in "bus").
    """
    words = re.sub(r"[0-9]+", "", name.lower()).split("-")
    joined = "".join(words)
    return (
        any(word in _WORDS or word.endswith(_ENDINGS) or _begins_with_a_concept(word) for word in words)
        or any(part in joined for part in _PARTS)
    )  # fmt: skip


def _begins_with_a_concept(word: str) -> bool:
    # "start" is no kind of star, and several hundred icons long
    return word.startswith(_BEGINNINGS) and not word.startswith("start")
