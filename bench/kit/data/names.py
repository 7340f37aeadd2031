"""Names of classes in words, as prompts need them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

DIGITS = tuple(
    f"number {word}" for word in ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
)
FASHION = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
# Places365 qualifies "stage/indoor": most qualifiers stand before the noun in English, these after it.
AFTER_THE_NOUN = frozenset({"shop", "door", "platform", "ocean_deep"})


@cache
def imagenet() -> dict[str, str]:
    """Return wnid -> name of the classes of ImageNet-1K, in sorted order; the names are open_clip's."""
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data.imagenet_info import ImageNetInfo

    wnids: list[str] = ImageNetInfo("imagenet-1k").label_names()  # type: ignore[no-untyped-call]
    return dict(zip(wnids, IMAGENET_CLASSNAMES, strict=True))


def spaced(identifier: str) -> str:
    """Write ``magic-wand`` or ``magic_wand`` in words."""
    return identifier.replace("-", " ").replace("_", " ").strip() or identifier


def of_folder(identifier: str) -> str:
    """Name the class whose folder is ``identifier``; a wnid of ImageNet-1K gets its name there."""
    is_wnid = len(identifier) == 9 and identifier[0] == "n" and identifier[1:].isdecimal()
    return imagenet().get(identifier, identifier) if is_wnid else spaced(identifier)


def of_place(identifier: str) -> str:
    """Name a class of Places365: ``church/indoor`` becomes "indoor church"."""
    noun, _, qualifier = identifier.partition("/")
    words = (noun, qualifier) if qualifier in AFTER_THE_NOUN else (qualifier, noun)
    return spaced(" ".join(filter(None, words)))


def of_words_file(path: Path) -> dict[str, str]:
    """Return wnid -> first synonym, from Tiny-ImageNet's ``words.txt`` (``n00001740<tab>entity, ...``)."""
    lines = (line.partition("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return {wnid: words.split(",")[0].strip() for wnid, _, words in lines}
