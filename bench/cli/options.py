"""Flags that several verbs share, and the grid they describe."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.parser import names, numbers, text_path
from bench.errors import UserError
from bench.planning.variants import plain_value

if TYPE_CHECKING:
    from bench.planning.grid import Request

STORE_VARIABLE = "DISTILL_BENCH_STORE"


def store_flag(parser: argparse._ActionsContainer) -> None:
    """Add ``--store PATH``."""
    default = Path(os.environ.get(STORE_VARIABLE, ".bench"))
    parser.add_argument(
        "--store",
        type=text_path,
        default=default,
        metavar="PATH",
        help=f"folder of artifacts and records (default: ${STORE_VARIABLE}, else .bench)",
    )


def existing_store(path: Path) -> Path:
    """Return an existing store to read.

    Raises:
        UserError: there is none.
    """
    if not (path / "cells").is_dir():
        raise UserError(f"there is no store at {path}; `bench run` makes one, --store names another")
    return path


def data_root_flag(parser: argparse._ActionsContainer) -> None:
    """Add ``--data-root PATH``."""
    parser.add_argument(
        "--data-root",
        type=text_path,
        metavar="PATH",
        help="the folder that holds data sets (default: $DISTILL_BENCH_DATA, else ~/.cache/distill-bench/data)",
    )


def grid_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what to compute."""
    group = parser.add_argument_group("what to compute")
    group.add_argument(
        "--methods", type=names, help="e.g. hello,rded or 'hello[conv_rank=4],hello'; see bench list methods"
    )
    group.add_argument(
        "--ipc", type=numbers("images per class"), metavar="N,…", help="images per class (default: 1,10,50)"
    )
    group.add_argument("--dataset", metavar="NAME", help="or folder:PATH (default: digits)")
    group.add_argument("--students", type=names, help="see bench list students (default: the data set's own)")
    group.add_argument(
        "--seeds", type=numbers("seeds"), metavar="N,…", help="seeds of distillation and student alike (default: 0,1,2)"
    )
    group.add_argument(
        "--student-seeds",
        type=numbers("student seeds"),
        metavar="N,…",
        help="train one student per student seed on every distilled set, so that the two variances can be told apart; "
        "--seeds are then those of distillation alone (default: one student per set, of its seed)",
    )
    group.add_argument(
        "--protocol",
        type=names,
        help="common, official (each paper's own), a protocol's name or a TOML file (default: common)",
    )
    group.add_argument(
        "--labels",
        type=names,
        metavar="CHOICE,…",
        help="native (as each method's authors give them; the default), online, teacher:int8, stored:topk10+fp16, "
        "static:fp16, hard; see bench list labels",
    )
    group.add_argument("--no-baselines", action="store_true", help="leave out random images, hard labels, full data")
    group.add_argument(
        "--teacher",
        metavar="[ARCH=]FILE,…",
        help="checkpoints to use instead of training teachers, the first as the data set's own; or torchvision: the "
        "published weights of torchvision and timm, from their local caches",
    )
    group.add_argument(
        "--teacher-trajectory",
        metavar="[ARCH=]DIR",
        help="a folder with a checkpoint per epoch, or a pattern as DIR/model_{epoch}.pth",
    )
    group.add_argument("--clip", metavar="NAME", help="icon-clip, or an open_clip model: ARCH:TAG, or ARCH:TAG@/path")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="METHOD.FIELD=VALUE",
        dest="settings",
        help="change a setting of a method, of the teacher or of the protocol, e.g. hello.conv_rank=4, "
        "teacher.epochs=30, protocol.crop=none; repeatable",
    )
    data_root_flag(group)


def request(arguments: argparse.Namespace) -> Request:
    """Return the request of the flags of :func:`grid_flags`, with imported sets found in ``--store``.

    Raises:
        UserError: no methods, a setting of another form, or an imported set that isn't there.
    """
    from bench.planning.grid import Request

    if not arguments.methods:
        raise UserError("say which methods with --methods, e.g. hello,rded; see bench list methods")
    return Request(**given(arguments))


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a request that were given as flags.

    Raises:
        UserError: a setting of another form, or an imported set that isn't there.
    """
    from bench.exchange.distilled_set import settings

    overrides: dict[str, dict[str, Any]] = {}
    for setting in arguments.settings:
        place, equals, text = setting.partition("=")
        method, dot, name = place.partition(".")
        if not (equals and dot and method and name):
            raise UserError(f"--set {setting}: expected METHOD.FIELD=VALUE, e.g. --set hello.conv_rank=4")
        overrides.setdefault(method, {})[name] = plain_value(text)  # JSON, or else plain text
    plain = ("methods", "ipc", "dataset", "students", "seeds", "student_seeds", "labels", "teacher", "clip")
    values = {
        **{name: getattr(arguments, name) for name in (*plain, "teacher_trajectory", "data_root")},
        "protocols": arguments.protocol,
        "baselines": False if arguments.no_baselines else None,
        "overrides": overrides or None,
        "imported": settings(arguments.methods or (), arguments.store) or None,
    }
    return {name: value for name, value in values.items() if value is not None}
