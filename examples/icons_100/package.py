"""The npm package `@iconify/json`: icon sets, licences, names, and drawings as pixels.

A set takes part when its licence is permissive (`PERMISSIVE`) and it draws things rather than brands: logo,
programming-tool and flag sets are left out, because their names name trademarks or countries and because a
brand's mark may not be changed freely whatever the file's licence says. Hidden icons (withdrawn by their set),
aliases (the same drawing under a second name) and skin-tone variants of an emoji are left out as duplicates.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import UserError

# Attribution-only licences (CC-BY) count as permissive: they allow every use and change, and every artifact made
# here carries the attribution. Left out: share-alike, non-commercial, no-derivatives, GPL, MPL (file-level
# copyleft), OFL (derived fonts must stay OFL; whether a raster derives from a font is for a lawyer) and unknown.
PERMISSIVE = frozenset({"MIT", "Apache-2.0", "ISC", "CC0-1.0", "CC-BY-4.0", "CC-BY-3.0", "Unlicense", "BSD-3-Clause"})
BRAND_CATEGORIES = frozenset({"Logos", "Programming"})
BRAND_SETS = frozenset({"circle-flags", "flag", "flagpack", "cif", "fa6-brands", "fa-brands", "file-icons"})
BRAND_PREFIXES = ("brand-", "logo-", "logos-", "flag-for-", "flag-of-", "flag-")

# Words that say how an icon is drawn, not what it shows. The second group are also ordinary words ("traffic
# light", "bus line"), so they count as style only in a set where at least 5 % of the names end in them.
STYLE = frozenset({
    "outline", "outlined", "filled", "fill", "bold", "duotone", "twotone", "linear", "thin", "regular", "sharp",
    "rounded", "solid", "remix", "alt", "variant", "icon", "icons", "expressive",
})  # fmt: skip
STYLE_BY_USE = frozenset({
    "light", "line", "flat", "small", "round", "large", "broken", "color", "duo", "o", "tone", "two", "stroke",
    "tiny", "sm", "md", "lg", "xs", "poly", "pop", "print", "freehand", "bolder", "fine", "big", "f",
})  # fmt: skip
STYLE_IN_FRONT = frozenset({"baseline", "outline", "round", "sharp", "twotone", "ios", "md", "bxs", "bx", "icon"})
WORTH_PROCESSES = 2000  # icons; fewer are drawn before another process has started
_EXPECTED = "expected the npm package @iconify/json, which `npm pack @iconify/json` fetches"
KEEP_DIGITS_AFTER = frozenset({"number", "numeric", "digit", "counter", "numbers", "letter", "looks"})


@dataclass(frozen=True)
class Icon:
    """One drawing: the prefix of its set, its name there and without the set's style words, and its SVG document."""

    set: str
    name: str
    concept: str
    svg: str


@dataclass(frozen=True)
class IconPackage:
    """The permissive sets of the package that depict no brands; ``sets`` maps a prefix to licence and attribution."""

    version: str
    sets: dict[str, dict[str, str]]
    icons: list[Icon]


def read_package(source: Path) -> IconPackage:
    """Read sets in alphabetical order and icons in the order of the package, a .tgz or an unpacked folder.

    Raises:
        UserError: it is neither, a file is missing or broken, or no set has a permissive licence.
    """
    read = _reader(source)

    def load(name: str) -> Any:
        try:
            return json.loads(read(name))
        except (KeyError, FileNotFoundError, json.JSONDecodeError) as error:
            raise UserError(f"{source}: {name} is missing or broken ({type(error).__name__}); {_EXPECTED}") from None

    found = IconPackage(str(load("package.json").get("version", "unknown")), {}, [])
    for prefix, facts in sorted(load("collections.json").items()):
        licence = facts.get("license", {})
        if licence.get("spdx") not in PERMISSIVE or facts.get("category") in BRAND_CATEGORIES or prefix in BRAND_SETS:
            continue
        data, author = load(f"json/{prefix}.json"), facts.get("author", {})
        found.sets[prefix] = {
            "name": facts.get("name", prefix),
            "licence": licence["spdx"],
            "licence_url": licence.get("url", ""),
            "author": author.get("name", ""),
            "author_url": author.get("url", ""),
        }
        found.icons.extend(_icons_of_set(prefix, data))
    if not found.icons:
        raise UserError(f"{source}: no icon with a permissive licence in it; {_EXPECTED}")
    return found


def _reader(source: Path) -> Callable[[str], bytes]:
    """Return a function that reads a file of the package by name: from a folder, or from a .tgz that is read once."""
    if source.is_dir():
        root = source / "package" if (source / "package").is_dir() else source
        return lambda name: (root / name).read_bytes()
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(source, "r:*") as archive:
            for member in archive:
                handle = archive.extractfile(member) if member.name.endswith(".json") else None
                if handle is not None:
                    members[member.name.split("/", 1)[-1]] = handle.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{source}: not a readable .tgz ({error}); {_EXPECTED}") from None
    return members.__getitem__


def _icons_of_set(prefix: str, data: dict[str, Any]) -> Iterator[Icon]:
    shown = {
        name: icon
        for name, icon in data["icons"].items()
        if not (icon.get("hidden") or "skin-tone" in name or name.startswith(BRAND_PREFIXES))
    }
    styles = style_words(list(shown), data)
    for name, icon in shown.items():
        left, top, width, height = (
            icon.get(key, data.get(key, default))
            for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        )
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="100" height="100" color="#000" viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
        )
        yield Icon(prefix, name, canonical_name(name, styles), svg)


def style_words(names: list[str], data: dict[str, Any]) -> frozenset[str]:
    """Return the words at the end of a name that are style in this set: always, declared by it, or by their use."""
    declared = {word for suffix in data.get("suffixes") or {} for word in suffix.split("-") if word}
    last = Counter(name.rsplit("-", 1)[-1] for name in names if "-" in name)
    by_use = {word for word in STYLE_BY_USE if last[word] >= 0.05 * len(names) and last[word] >= 3}
    return STYLE | declared | by_use


def canonical_name(name: str, styles: frozenset[str] = STYLE) -> str:
    """Strip style and copy numbers: `camera-24-filled` -> `camera`, `shopping-cart-2-line` -> `shopping cart`.

    `number-5` stays `number 5`.
    """
    words = [word for word in name.lower().split("-") if word]
    while len(words) > 1 and words[0] in STYLE_IN_FRONT:
        words = words[1:]
    while len(words) > 1 and (
        words[-1] in styles or (re.fullmatch(r"\d+(px)?", words[-1]) and words[-2] not in KEEP_DIGITS_AFTER)
    ):
        words = words[:-1]
    return re.sub(r"(?<=[a-z]{3})\d+$", "", " ".join(words))


def rasterise(svg: str, size: int) -> NDArray[np.uint8]:
    """Draw a glyph dark on white with its aspect ratio kept: uint8 (size, size, 3).

    Raises:
        UserError: the drawing package is not installed.
        ValueError: it draws nothing.
    """
    try:
        import resvg_py
    except ImportError:
        raise UserError("drawing icons needs the package resvg-py; run `pip install 'distill-bench[icons]'`") from None
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="#ffffff", skip_system_fonts=True)
    pixels = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))
    # An animated or text-only icon can be empty in its first frame: nothing there to learn or to test.
    if int(pixels.max()) - int(pixels.min()) < 32:
        raise ValueError("draws nothing")
    return pixels


def rasterise_many(
    icons: list[Icon], size: int, processes: int, progress: Callable[[int, int], None] | None = None
) -> Iterator[NDArray[np.uint8] | str]:
    """Yield the pixels of each icon in order, or a line that says why it does not draw."""
    jobs = ((icon.svg, size) for icon in icons)
    with ExitStack() as stack:
        results: Iterable[NDArray[np.uint8] | str] = map(_rasterise_or_say_why, jobs)
        if processes > 1 and len(icons) > WORTH_PROCESSES:
            pool = stack.enter_context(get_context("spawn").Pool(processes))
            results = pool.imap(_rasterise_or_say_why, jobs, chunksize=256)
        for index, result in enumerate(results):
            yield result
            if progress is not None and (index + 1) % 1000 == 0:
                progress(index + 1, len(icons))


def _rasterise_or_say_why(job: tuple[str, int]) -> NDArray[np.uint8] | str:
    try:
        return rasterise(*job)
    except (ValueError, OSError) as error:
        return str(error).splitlines()[0][:100]
