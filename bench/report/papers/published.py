"""``leaderboards/published.csv``, the papers' numbers, beside what was measured.

One line per number and source; nothing in it was measured by the benchmark, and published numbers are never ranked:

- ``method``, ``variant`` (a changed method, never the one the benchmark runs under the same name), ``dataset``,
  ``ipc``, ``student`` (as ``bench list students`` names it), ``value`` and ``std`` (top-1 in percent, as printed)
- ``source``, ``source_title``, ``where``: who prints it; ``unchecked``: not compared with its source; ``note``
- ``protocol``: the source's recipe, empty where it is not known; ``runs_as`` and ``labels_as``: the benchmark's
  protocol that is this recipe and its ``--labels``; ``can_run``: 0 where the benchmark can't do it
- ``labels``: stored (logits of every view in fp16, in SRe2L's files: ``label_epochs`` of batches of
  ``label_batch_size``, ``label_index``: with image numbers, ``label_prune``: one batch in so many is kept) or online (a
  model of ``label_parameters`` in fp32); ``label_assumed``: the source leaves open what that rests on
- ``storage``: what the source prints as storage; ``storage_convention``: what it counts; ``binary_units``: MB are MiB

Papers report the best epoch on the test set; the benchmark's headline is the last epoch.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from bench.api import architectures, catalogue, registry
from bench.api.stored.size import fkd_bytes
from bench.errors import UserError
from bench.planning.label_choices import parse
from bench.planning.protocols import OFFICIAL, unchanged
from bench.report.rows import records

FILE = Path(__file__).parents[3] / "leaderboards" / "published.csv"  # a wheel puts it beside `bench`, too
SETTING = ["method", "variant", "dataset", "ipc", "student"]  # what two sources can disagree about
_COUNTS = ("ipc", "label_epochs", "label_batch_size", "label_index", "label_prune", "label_parameters", "classes",
           "unchecked", "can_run", "label_assumed", "binary_units")  # fmt: skip
_ALL_OF = {"sources": "source_title", "source_ids": "source", "storages": "storage", "notes": "note",
           "protocols": "protocol"}  # fmt: skip
_MEASURED = ["protocol", "protocol_version", "labels", "n", "top1_mean", "top1_std", "top1_low", "top1_high",
             "oracle_mean", "label_bytes"]  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ([KMGT])B")
_NUMBER = r"\d+(?:\.\d+)?"


@cache
def load(path: Path = FILE) -> pd.DataFrame:
    """Load every published number in the order of the file.

    Adds ``label_bytes`` (computed), ``printed_bytes``, and the ``wanted_protocol`` and ``wanted_labels`` under which
    the benchmark measures it.

    Raises:
        UserError: the file is missing or broken: where, and what was expected.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path} is not there; expected beside the benchmark's packages: install it again") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {str(error).splitlines()[0]}") from None
    if missing := {*SETTING, *_COUNTS, "value", "std", "source", "where", "storage", "labels"} - set(frame):
        raise UserError(f"{path} has no column {min(missing)}")
    frame["printed"] = frame["value"] + ("±" + frame["std"]).where(frame["std"] != "", "")
    wrong = ~frame["value"].str.fullmatch(_NUMBER) | ~frame["std"].str.fullmatch(f"(?:{_NUMBER})?")
    for name in _COUNTS:
        wrong |= ~frame[name].str.fullmatch(r"\d*")
    twice = frame.duplicated([*SETTING, "source"])
    for at, line in enumerate(zip(wrong, twice, strict=True), 2):
        if any(line):
            said = "stands there twice; expected one per source" if line[1] else "has a number that is none"
            raise UserError(f"{path}:{at}: {', '.join(frame.loc[at - 2, [*SETTING, 'source']])} {said}")
    for name in _COUNTS:
        frame[name] = pd.to_numeric(frame[name]).astype("Int64")
    for name in ("value", "std"):
        frame[name] = pd.to_numeric(frame[name]).astype("float64")
    if not (frame["value"].between(0, 100) & frame["ipc"].gt(0)).all():
        raise UserError(f"{path}: a number is no percentage, or an IPC is 0")
    facts = records(frame)
    frame["label_bytes"] = pd.array([_label_bytes(one) for one in facts], dtype="Int64")
    frame["printed_bytes"] = pd.array([_printed_bytes(one) for one in facts], dtype="Int64")
    return _with_recipes(frame)


def _label_bytes(one: Any) -> Any:
    """Bytes of labels under the recipe; None where that does not say enough."""
    if one.labels == "stored" and one.classes:
        images = one.ipc * one.classes
        every = fkd_bytes(images, one.classes, one.label_epochs, one.label_batch_size, index=bool(one.label_index))
        return every // one.label_prune
    return None if one.label_parameters is None else 4 * one.label_parameters


def _printed_bytes(one: Any) -> int | None:
    """Storage that a source prints in bytes (``2.54 GB``)."""
    if (found := _SIZE.search(one.storage)) is None:
        return None
    return round(float(found[1]) * float(1024 if one.binary_units else 1000) ** " KMGT".index(found[2]))


def _with_recipes(frame: pd.DataFrame) -> pd.DataFrame:
    """Add what the benchmark would run: the source's own recipe, else that of the method's authors on that data set."""
    own = frame[frame["runs_as"] != ""].drop_duplicates(["method", "dataset"], keep="last")
    own = own[["method", "dataset", "runs_as", "labels_as"]]
    named = frame[["method", "dataset"]].merge(own, on=["method", "dataset"], how="left")
    known = frame["runs_as"] != ""
    frame["wanted_protocol"] = frame["runs_as"].where(known, named["runs_as"].fillna(OFFICIAL))
    frame["wanted_labels"] = frame["labels_as"].where(known, named["labels_as"].fillna("native"))
    return frame


def numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Pool numbers to one row per setting and value, whoever prints it, that with a standard deviation first.

    Adds ``sources`` (titles), ``source_ids``, ``storages``, ``notes``; methods, variants and students in the order of
    the file.
    """
    frame = frame.assign(order=range(len(frame)))
    for name, key in (("at_method", ["method"]), ("at_variant", ["method", "variant"]), ("at_student", ["student"])):
        frame[name] = frame.groupby(key, sort=False).ngroup()
    place = [*SETTING, "value"]
    frame["label_bytes"] = frame["label_bytes"].fillna(frame.groupby(place)["label_bytes"].transform("first"))
    groups = frame.groupby([*place, "label_bytes"], dropna=False, sort=False)
    frame["number"] = groups.ngroup()
    groups = frame.groupby("number")
    frame["unchecked"] = groups["unchecked"].transform("min")
    frame["label_assumed"] = groups["label_assumed"].transform("max")
    frame["known"] = (frame["runs_as"] != "").groupby(frame["number"]).transform("any")
    first = frame.sort_values(["number", "std", "order"], na_position="last").drop_duplicates("number")
    first = first.set_index("number")
    for name, column in _ALL_OF.items():
        first[name] = groups[column].agg(lambda own: tuple(dict.fromkeys(filter(None, own))))
    return first.sort_values(["at_method", "at_variant", "at_student", "ipc", "order"]).reset_index(drop=True)


def beside(frame: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Join published :func:`numbers` with the measured row to compare each with (``measured_…``; NaN: none).

    Only rows under a paper's own recipe, because another one moves accuracy by more than most methods do; of several
    the newest version's, then the largest.
    """
    found = numbers(frame)
    found["at"] = range(len(found))
    official = rows["protocol"].map(lambda one: one.startswith(OFFICIAL) and unchanged(one) == one).astype(bool)
    ours = rows.loc[official & (rows["n"] > 0) & rows["ipc"].notna()]
    ours = ours[["method", "dataset", "ipc", "student", *_MEASURED]]
    ours = ours.astype({"n": "Int64"}).rename(columns={one: f"measured_{one}" for one in _MEASURED})
    both = found[found["variant"] == ""].merge(ours, on=["method", "dataset", "ipc", "student"])
    fits = [
        one.measured_protocol.startswith(one.wanted_protocol)
        and one.measured_labels == board_labels(one.method, one.wanted_labels)
        for one in both.itertuples()
    ]
    both = both[pd.Series(fits, both.index, dtype=bool)].sort_values(["measured_protocol_version", "measured_n"])
    both = both.drop_duplicates("at", keep="last")[["at", *(f"measured_{one}" for one in _MEASURED)]]
    found = found.merge(both, on="at", how="left").drop(columns="at")
    return found.assign(delta=100 * found["measured_top1_mean"].astype("float64") - found["value"])


@cache
def board_labels(method: str, choice: str) -> str | None:
    """Board's word for labels that are asked for by a choice; None for a method that is no plug-in."""
    if method not in registry.method_names():
        return None
    info = registry.method(method).info
    return parse(choice, info).title(info.labels)


def obstacle(one: Any) -> str:
    """Tell why the benchmark can't measure a published setting; empty where it can."""
    if one.variant:
        return "a changed method"
    if one.method not in registry.method_names():
        return f"no plug-in {one.method}"
    if one.dataset not in catalogue.names():
        return f"no data set {one.dataset}"
    try:
        architectures.check(one.student)
    except UserError:
        return f"no student {one.student}"
    return "" if one.can_run else "its recipe is not known well enough"


def commands(frame: pd.DataFrame) -> list[str]:
    """Commands that measure published settings, as few as make no other setting.

    Settings that the benchmark can't measure come in none.
    """
    frame = frame[[not obstacle(one) for one in frame.itertuples()]]
    request = ["method", "dataset", "wanted_protocol", "wanted_labels"]
    scales = frame.groupby([*request, "student"], sort=False)["ipc"].agg(
        lambda own: ",".join(map(str, sorted(set(own))))
    )
    grids = scales.reset_index().groupby([*request, "ipc"], sort=False)["student"].agg(",".join)
    found = []
    for (method, dataset, protocol, labels, ipc), students in grids.items():
        options = {"methods": method, "dataset": dataset, "ipc": ipc, "students": students, "protocol": protocol}
        options |= {} if labels == "native" else {"labels": labels}
        words = (f"--{flag} {shlex.quote(word)}" for flag, word in options.items())
        found.append("python -m bench run " + " ".join(words))
    return found


def points(dataset: str, student: str | None = None) -> pd.DataFrame:
    """List published numbers of a data set for figures.

    Returns:
        ``method``, ``variant``, ``ipc``, ``student``, ``value`` (percent), ``source``, ``wanted_protocol`` and
        ``bytes`` (computed from the recipe, else as printed; others are left out).
    """
    frame = load()
    found = numbers(frame[(frame["dataset"] == dataset) & (frame["student"].eq(student) if student else True)])
    found = found.assign(bytes=found["label_bytes"].fillna(found["printed_bytes"]))
    return found.loc[found["bytes"].notna(), ["method", "variant", "ipc", "student", "value", "source",
                                              "wanted_protocol", "bytes"]]  # fmt: skip
