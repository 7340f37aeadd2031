"""Checkpoints that others trained: fitted to a network of this package, or refused with what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.api import Dataset, TeacherSpec, architectures
from bench.errors import UserError
from bench.kit.models import build
from bench.kit.teachers.reading import USUAL, State, listed, short, states_in
from bench.kit.teachers.trajectory import Network

# names of others -> names here: RDED's ConvNets (synthesize/models.py), and ResNets as in kuangliu/pytorch-cifar and DC
_NAMINGS: tuple[tuple[tuple[str, Any], ...], ...] = (
    (),
    tuple((rf"\blayers\.{kind}\.(\d+)\.", lambda found, at=at: f"features.{4 * int(found[1]) + at}.")
          for at, kind in enumerate(("conv", "norm"))),
    ((r"\bshortcut\.", "downsample."), (r"\b(linear|classifier)\.(?=\w+$)", "fc.")),
)  # fmt: skip
_COUNTERS = re.compile(r"(.*\.)?(num_batches_tracked|total_ops|total_params|n_averaged)$")  # no weights
_UNKNOWN = ("; no architecture here is like it: give its network as a student of yours (docs/own-parts.md) and choose "
            "--teacher NAME=FILE")  # fmt: skip


def fitted(network: Network, path: Path, owner: str, chosen: str | None = None) -> tuple[State, str]:
    """Read the state dict in a file that fits a network, under this package's names; and the name of its head.

    The head may have more classes than the network. Prefixes that training scripts add are taken off.

    Args:
        owner: the data set, for messages.
        chosen: the place of the state dict in the file, or a prefix of names; None: the one that fits.

    Raises:
        UserError: none fits, or several do; says what is wrong: number of classes, image size or architecture.
    """
    states, keys = states_in(path)
    with torch.device("meta"):
        wanted = network.build().net.state_dict()
    head = next(reversed(wanted)).rpartition(".")[0]
    tried = [one for place, state in states.items() for one in _spellings(place, state, wanted)]
    if chosen is not None:
        tried = [one for one in tried if f"{one[0]}.".startswith(f"{chosen}.")]
        if not tried:
            raise UserError(f"the teacher file {path} has no state dict of {network.arch} under {chosen!r}; {keys}")
    fits = {place: state for place, state in tried if _matches(state, wanted, head)}
    if len(fits) > 1 and chosen is None:  # averages are meant only where nothing else fits
        fits = {place: fits[place] for place in fits if "ema" not in place.lower()} or fits
        usual = sorted((place.split(".") for place in fits if set(place.split(".")) <= set(USUAL)), key=_usualness)
        fits = {place: fits[place] for place in map(".".join, usual[:1])} or fits
    if len(fits) > 1:
        raise UserError(
            f"the teacher file {path} has several state dicts of {network.arch}: {listed(fits)}; choose one with "
            f"--set teacher.weights={next(iter(fits))}"
        )
    if not fits:
        raise _misfit(network, path, owner, states, keys, wanted, head, tried)
    (state,) = fits.values()
    classes = len(state[f"{head}.weight"])
    if classes < network.classes:
        raise UserError(
            f"the teacher file {path} has {classes} classes and {owner} has {network.classes}; give a teacher of "
            f"{owner}, or train one without --teacher"
        )
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or not torch.isfinite(tensor).all():
            raise UserError(f"the teacher file {path} holds weights that are no finite dense numbers: {short(name)}")
    return {name: state.get(name, torch.tensor(0)).to(kind.dtype) for name, kind in wanted.items()}, head


def _usualness(parts: list[str]) -> list[int]:
    return [USUAL.index(part) for part in parts]


def imported(spec: TeacherSpec, network: Network, dataset: Dataset) -> dict[int, State]:
    """Read the checkpoints of a teacher from files, by epoch, the rows of their heads in the data set's class order.

    Raises:
        UserError: a file can't be used or changed since it was planned with, or its classes are not the data set's.
    """
    if spec.file_sha256 not in (None, spec.digest()):
        raise UserError(f"the teacher file {spec.files[0]} changed since the run was planned; plan it again")
    made = {}
    for epoch, path in zip(spec.kept_epochs(), spec.files, strict=True):
        state, head = fitted(network, Path(path), dataset.info.name, spec.weights)
        rows = _rows(spec, dataset, len(state[f"{head}.weight"]), path)
        made[epoch] = {n: (t[rows] if n.rpartition(".")[0] == head else t).contiguous() for n, t in state.items()}
    return made


def _rows(spec: TeacherSpec, dataset: Dataset, classes: int, path: str) -> list[int]:
    """Return the row of a file's head for each class: the first rows (RDED's ``load_model``), or as is stated."""
    ids, order = dataset.ids, spec.class_order
    if order is None:
        return list(range(len(ids)))
    if isinstance(order, str):
        order = tuple(sorted(ids, key=natural if order == "natural" else str))
    place = {one: row for row, one in enumerate(order)}
    rows = [place.get(one, place.get(name, classes)) for one, name in zip(ids, dataset.names, strict=True)]
    if max(rows) >= classes:
        lost = ids[rows.index(max(rows))]
        raise UserError(
            f"teacher.class_order of {path}: no row of its {classes} is class {lost} of {dataset.info.name}"
        )
    return rows


def natural(text: str) -> list[tuple[int, str]]:
    """Return the key by which texts are sorted with their numbers by value: 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def _spellings(place: str, state: State, wanted: State) -> Iterator[tuple[str, State]]:
    """Yield a state dict with names as they would be here, each way that has the first wanted name at least."""
    first = next(iter(wanted))
    for naming in _NAMINGS:
        named = dict(state)
        for pattern, name in naming:
            named = {re.sub(pattern, name, old): tensor for old, tensor in named.items()}
        if naming and named.keys() == state.keys():
            continue
        ends = (name.removesuffix(first) for name in named if name.endswith(first))
        for prefix in sorted({end for end in ends if end.endswith(".") or not end}, key=len):
            inner = {name.removeprefix(prefix): t for name, t in named.items() if name.startswith(prefix)}
            inner = {name: t for name, t in inner.items() if name in wanted or not _COUNTERS.match(name)}
            yield f"{place}.{prefix}".strip("."), inner


def _matches(state: State, wanted: State, head: str = "") -> bool:
    """Return whether names and shapes agree, but for the rows of the head and counters."""
    weights = {name for name in wanted if not _COUNTERS.match(name)}
    return weights <= state.keys() <= wanted.keys() and all(
        _shape(state[name], name, head) == _shape(wanted[name], name, head) for name in weights
    )


def _shape(tensor: torch.Tensor, name: str, head: str) -> tuple[int, ...]:
    return tuple(tensor.shape[1:] if name.rpartition(".")[0] == head else tensor.shape)


def _misfit(
    network: Network, path: Path, owner: str, states: dict[str, State], keys: str, wanted: State, head: str,
    tried: list[tuple[str, State]],
) -> UserError:  # fmt: skip
    """Say why no state dict of a file fits: image size or architecture, with the nearest one."""
    for _, state in tried:
        if state.keys() == wanted.keys():
            other = [n for n in wanted if state[n].shape != wanted[n].shape and n.rpartition(".")[0] != head]
            theirs, ours = state[f"{head}.weight"].shape, wanted[f"{head}.weight"].shape
            if not other and len(theirs) == len(ours) == 2 and theirs[1] != ours[1]:
                return UserError(
                    f"the teacher file {path} is {network.arch} for images of another size: its head takes {theirs[1]} "
                    f"features, {ours[1]} at the {network.image_size} px of {owner}; choose --set teacher.image_size=N"
                )
    place, state = max(states.items(), key=lambda one: len(one[1]))
    missing = [name for name in wanted if name not in state and not _COUNTERS.match(name)]
    near, differing = nearest(state, network.image_size)
    found = [name for name in state if name not in wanted] or list(state)
    names = f"expected {listed(missing[:2])}, found {listed(found[:2])}"
    if not missing:
        names = f"too many names: {listed(found)}" if found[0] not in wanted else _other_shape(state, wanted, head)
    if near == network.arch:  # but for a few names
        step = "" if not missing and found[0] in wanted else "; save the state_dict() of this network alone"
        return UserError(f"the teacher file {path} is not quite a {near} ({names}){step}")
    step = f"; nearest is {near}, so choose --teacher {near}={path}" if near else _UNKNOWN
    if near and differing:
        step = f"; nearest is {near}, which it does not fit either ({differing})"
    under = f" under {place!r}" if place else ""
    return UserError(
        f"the teacher file {path} is of another architecture than {network.arch} ({names}{under}){step}; {keys}"
    )


def _other_shape(state: State, wanted: State, head: str) -> str:
    """Name the first weight of another shape, or else the first name that only one side has; empty: none."""
    for name in wanted:
        if name in state and _shape(state[name], name, head) != _shape(wanted[name], name, head):
            return f"{short(name)} has shape {list(state[name].shape)}, expected {list(wanted[name].shape)}"
    alone = [name for name in (*wanted, *state) if (name in wanted) != (name in state) and not _COUNTERS.match(name)]
    return f"{short(alone[0])} is {'missing' if alone[0] in wanted else 'too many'}" if alone else ""


def nearest(state: State, size: int) -> tuple[str | None, str]:
    """Return the architecture whose names and shapes are most like a state dict's (None: none is half like it).

    And the first difference, empty where the state dict fits.
    """
    convs, guessed = [tensor for tensor in state.values() if tensor.ndim == 4], []
    if convs:
        depth, width = len(convs), len(convs[0])
        guessed = [f"convnet{depth}-w{width}{norm}" for norm in ("", "-in") if depth <= 8]
        guessed += [f"resnet{layers}-small-w{width}" for layers in (10, 18, 34, 50)]
    best, likeness, differing = None, 0.0, ""
    for arch in (*guessed, *architectures.SMALL, *architectures.LARGE):
        wanted = _built(arch, size)
        head = next(reversed(wanted), "").rpartition(".")[0]
        for _, inner in _spellings("", state, wanted) if wanted else ():
            if _matches(inner, wanted, head):
                return arch, ""
            same = sum(_shape(wanted[n], n, head) == _shape(inner[n], n, head) for n in wanted.keys() & inner.keys())
            if (like := same / len(wanted.keys() | inner.keys())) > likeness:
                best, likeness, differing = arch, like, _other_shape(inner, wanted, head)
    return (best, differing) if likeness >= 0.5 else (None, "")


@cache
def _built(arch: str, size: int) -> State:
    """Return the state dict of an architecture without its numbers; empty: it can't take images of this size."""
    try:
        with torch.device("meta"):
            return build(arch, 10, size, (0.5,) * 3, (0.5,) * 3).net.state_dict()
    except (UserError, RuntimeError):
        return {}
