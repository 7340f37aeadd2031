"""``leaderboards/published.toml``, the papers' numbers: what may stand in it, and reading it."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from bench.api import BaseConfig, catalogue
from bench.errors import UserError

FILE = Path(__file__).parents[2] / "leaderboards" / "published.toml"  # a wheel puts it beside `bench`, too
ABSENT = "–"
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)(?:±(\d+(?:\.\d+)?))?")

Count = Annotated[int, Field(ge=1)]


class Source(BaseConfig):
    """Who prints numbers, ``where``, and what they count as storage; ``binary_units``: their MB are MiB."""

    title: str
    where: str
    counts: str = ""
    binary_units: bool = False


class _Recipe(BaseConfig):
    """How a source labels and trains, as far as it matters here.

    ``runs_as`` is the benchmark's protocol that is the same recipe and ``labels_as`` the choice of ``--labels`` that
    goes with it; ``runs`` is false where the benchmark can't do it as it stands. ``assumed``: the source leaves open
    what the label bytes rest on; ``printed``: what it prints of the model that labels.
    """

    teacher: str = ""
    runs_as: str = ""
    labels_as: str = "native"
    runs: bool = True
    assumed: bool = False
    printed: str = ""


class Stored(_Recipe):
    """Logits of every view, stored in SRe2L's files; of ``prune`` batches one is kept."""

    labels: Literal["stored"]
    epochs: Count
    batch_size: Count
    index: bool = False
    prune: Count = 1


class Online(_Recipe):
    """A model of ``parameters`` answers every view; None: it is the teacher."""

    labels: Literal["online"]
    parameters: Count | None = None


class Foreign(BaseConfig):
    """A data set that the benchmark does not have; ``classes`` where they are known."""

    title: str
    classes: Count | None = None


class Published(BaseConfig):
    """One published number: as ``printed``, and read as ``top1`` ± ``std`` in percent.

    ``storage`` is what the source prints as storage, in its own words; ``recipe`` is None where it is not known, and
    ``classes`` where the data set's are not.
    """

    source: str
    method: str
    variant: str
    dataset: str
    ipc: int
    student: str
    teacher: str
    printed: str
    top1: float
    std: float | None
    protocol: str
    recipe: Stored | Online | None
    storage: str
    unchecked: bool
    note: str
    classes: int | None

    @property
    def setting(self) -> tuple[str, str, str, int, str]:
        """What two sources can disagree about."""
        return self.method, self.variant, self.dataset, self.ipc, self.student


class _Row(BaseConfig):
    source: str
    method: str
    ipc: tuple[Count, ...]
    dataset: str
    student: str
    top1: str
    variant: str = ""
    protocol: str = ""
    teacher: str = ""
    storage: str = ""
    unit: str = ""
    unchecked: bool = False
    note: str = ""

    @model_validator(mode="after")
    def _a_number_for_each_ipc(self) -> _Row:
        numbers, sizes = self.top1.split(), self.storage.split()
        if len(numbers) != len(self.ipc) or len(sizes) not in (0, len(self.ipc)):
            raise ValueError(f"top1 and storage need one word for each of {len(self.ipc)} ipc, {ABSENT} for none")
        for word in numbers:
            found = _NUMBER.fullmatch(word)
            if word != ABSENT and (found is None or float(found[1]) > 100):
                raise ValueError(f"{word!r} is no top-1; expected a percentage like 46.8 or 46.8±0.2, or {ABSENT}")
        return self


class _Content(BaseConfig):
    sources: dict[str, Source]
    protocols: dict[str, Annotated[Stored | Online, Field(discriminator="labels")]]
    datasets: dict[str, Foreign]
    tables: tuple[_Row, ...]

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, content: dict[str, Any]) -> dict[str, Any]:
        """Rows with their tables' fields."""
        rows = []
        tables = content.get("tables")
        for number, table in enumerate(tables if isinstance(tables, list) else (), start=1):
            own = table.get("rows") if isinstance(table, dict) else None
            if not isinstance(own, list) or not all(isinstance(row, dict) for row in own):
                raise ValueError(f"table {number} has no rows; expected rows = [{{ ... }}, ...]")
            rows += [{key: value for key, value in table.items() if key != "rows"} | row for row in own]
        return content | {"tables": rows}


@cache
def read(path: Path = FILE) -> tuple[tuple[Published, ...], dict[str, Source]]:
    """Every published number, in the order of the file, and who prints them.

    Raises:
        UserError: the file is missing or broken: where, and what was expected.
    """
    try:
        content = _Content.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path} is not there; expected beside the benchmark's packages: install it again") from None
    except ValidationError as error:
        raise UserError(f"{path}: {_worded(error)}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}") from None
    classes: dict[str, int | None] = {name: catalogue.dataset(name).classes for name in catalogue.names()}
    classes |= {name: foreign.classes for name, foreign in content.datasets.items()}
    found: dict[Any, Published] = {}
    for row in content.tables:
        for kind, name, known in (
            ("source", row.source, content.sources),
            ("protocol", row.protocol, {"", *content.protocols}),
            ("dataset", row.dataset, classes),
        ):
            if name not in known:
                raise UserError(f"{path}: {_place(row)}: there is no {kind} {name!r}; expected one of its section")
        for one in _numbers(row, content, classes):
            if found.setdefault((one.source, one.setting), one) is not one:
                raise UserError(f"{path}: {_place(row)}, IPC {one.ipc} stands there twice; expected one a source")
    return tuple(found.values()), content.sources


def _numbers(row: _Row, content: _Content, classes: dict[str, int | None]) -> list[Published]:
    recipe = content.protocols.get(row.protocol)
    shared = row.model_dump(
        include={"source", "method", "variant", "dataset", "student", "protocol", "unchecked", "note"}
    )
    sizes = row.storage.split() or [ABSENT] * len(row.ipc)
    made = []
    for ipc, word, size in zip(row.ipc, row.top1.split(), sizes, strict=True):
        found = _NUMBER.fullmatch(word)
        if found is None:
            continue
        storage = [recipe.printed if recipe else "", "" if size == ABSENT else f"{size} {row.unit}".strip()]
        made.append(
            Published(
                **shared,
                ipc=ipc,
                printed=word,
                top1=float(found[1]),
                std=None if found[2] is None else float(found[2]),
                recipe=recipe,
                teacher=row.teacher or (recipe.teacher if recipe else ""),
                storage=", ".join(part for part in storage if part),
                classes=classes[row.dataset],
            )
        )
    return made


def _place(row: _Row) -> str:
    return f"{row.method} of {row.source} on {row.dataset}, {row.student}"


def _worded(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    row = first["input"] if isinstance(first["input"], dict) else {}
    if first["loc"][:1] == ("tables",) and "method" in row:
        place += f" ({row.get('method')} of {row.get('source')} on {row.get('dataset')}, {row.get('student')})"
    return " ".join(f"{place or 'the file'}: {first['msg']}".split())
