"""What HeLlO and LPLD print about storage, beside what the formulas give: in which unit is it true?"""

from __future__ import annotations

from dataclasses import dataclass

from bench.api.label_bytes import fkd_bytes, logit_bytes
from bench.errors import UserError
from bench.storage_calculator import networks
from bench.storage_calculator.asked import EPOCHS, TEACHER, Asked, Asking
from bench.storage_calculator.weigh import image_bytes

MB, MIB, GB, GIB = 10**6, 2**20, 10**9, 2**30
M, MI = 10**6, 2**20  # of parameters
HELLO, LPLD = "HeLlO", "LPLD"
SOURCE = "HeLlO (arXiv 2408.08201), Figure 1"
CLOSE = 1e-3  # LPLD's files: how heavy their containers are depends on torch's version


@dataclass(frozen=True)
class Reading:
    """One way to understand a printed number: what it comes to, and in which unit or by which division."""

    value: float
    unit: str
    fits: bool


@dataclass(frozen=True)
class Claim:
    """A number that a paper prints, and its readings."""

    source: str
    what: str
    printed: str
    readings: tuple[Reading, ...]

    @property
    def true_in(self) -> list[Reading]:
        """The readings that come to what is printed."""
        return [one for one in self.readings if one.fits]


def _claim(source: str, what: str, printed: str, unit: str, *readings: tuple[float, str], figures: int = 0) -> Claim:
    """A reading fits that is printed the same.

    Args:
        figures: how many digits are significant, where it is not all that are printed.
    """
    decimals = len(printed.partition(".")[2])
    form = f".{figures}g" if figures else ".0e" if "e" in printed else f".{decimals}f"
    made = [Reading(value, how, f"{value:{form}}" == f"{float(printed):{form}}") for value, how in readings]
    return Claim(source, what, f"{printed} {unit}".strip(), tuple(made))


def claims() -> list[Claim]:
    """All of them; without those about a projector where HeLlO is not installed."""
    return [*_labels(), *_teacher(), *_projector(), *_files()]


def _labels() -> list[Claim]:
    one, two_hundred = logit_bytes(1000, 1000, EPOCHS), logit_bytes(200_000, 1000, EPOCHS)
    images = image_bytes(1000, 224)
    return [
        _claim(HELLO, "labels, ImageNet-1K, IPC 1", "572", "MB", (one / MB, "MB"), (one / MIB, "MiB")),
        _claim(
            HELLO, "labels, ImageNet-1K, IPC 200", "110", "GB", (two_hundred / GB, "GB"), (two_hundred / GIB, "GiB"),
            figures=2,
        ),
        _claim(
            HELLO, "labels to images, IPC 1", "38", "×", (one / images, "in bytes"),
            (one / MIB / (images / MB), "as MiB to MB"),
        ),
    ]  # fmt: skip


def _teacher() -> list[Claim]:
    count = networks.parameters(TEACHER, 100)
    return [
        _claim(HELLO, "teacher, ImageNet-100", "10.7", "M", (count / M, "× 10⁶"), (count / MI, "× 2²⁰")),
        _claim(HELLO, "teacher in fp32, ImageNet-100", "42.83", "MB", (4 * count / MB, "MB"), (4 * count / MIB, "MiB")),
    ]


def _projector() -> list[Claim]:
    try:
        large, small = _numbers("hello", 1000), _numbers("hello", 100)
        whole, probe = _numbers("hello[head=full]", 1000), _numbers("hello[adapt=head,head=full]", 1000)
    except (UserError, _Unknown):
        return []

    def parameters(what: str, printed: str, count: int) -> Claim:
        return _claim(HELLO, what, printed, "M", (count / M, "× 10⁶"), (count / MI, "× 2²⁰"))

    full = logit_bytes(200_000, 1000, EPOCHS)
    return [
        parameters("projector, ImageNet-1K", "0.8", large),
        parameters("projector, ImageNet-100", "0.6", small),
        parameters("projector with a whole head", "1.5", whole),
        parameters("linear probe", "1.0", probe),
        parameters("saved by the low-rank head (table)", "0.7", whole - large),
        parameters("saved by the low-rank head (text)", "0.8", whole - large),
        _claim(
            HELLO, "projector to labels, IPC 200", "0.003", "%", (400 * large / full, "% in fp32"),
            (200 * large / full, "% in fp16"),
        ),
        _claim(
            HELLO, "the same, in an earlier draft", "0.001", "%", (400 * large / full, "% in fp32"),
            (200 * large / full, "% in fp16"),
        ),
        *(_ratio(1000, ipc, printed, large) for ipc, printed in ((1, "1e-4"), (10, "1e-5"), (50, "3e-6"))),
        *(_ratio(100, ipc, printed, small) for ipc, printed in ((1, "0.1"), (10, "0.01"), (50, "0.002"))),
        _claim(
            HELLO, "projector, ImageNet-100, IPC 100", "10.20", "MB", (4 * small / MB, "MB"), (4 * small / MIB, "MiB")
        ),
    ]  # fmt: skip


class _Unknown(Exception):
    """The size of the projector can't be told."""


def _numbers(method: str, classes: int) -> int:
    (asking,) = Asking.each(Asked(classes=classes, methods=(method,)))
    size = asking.method.label_size(asking.setting(1))
    if size is None:
        raise _Unknown
    return size.numbers


def _ratio(classes: int, ipc: int, printed: str, numbers: int) -> Claim:
    """Of the tables' ratio columns; M and MB are in powers of two there, so these cancel."""
    full = logit_bytes(ipc * classes, classes, EPOCHS)
    return _claim(
        HELLO, f"ratio, ImageNet-{'1K' if classes == 1000 else classes}, IPC {ipc}", printed, "",
        (4 * numbers / full, "in fp32"), (numbers / full, "M/MB"), (numbers / full / 10, "M/MB/10"),
    )  # fmt: skip


def _files() -> list[Claim]:
    found = []
    for ipc, printed in ((10, 5.67), (50, 28.33), (100, 56.66), (200, 113.33)):
        size = fkd_bytes(ipc * 1000, 1000, EPOCHS, 1024)
        readings = tuple(
            Reading(size / unit, name, abs(size / unit / printed - 1) < CLOSE)
            for unit, name in ((GB, "GB"), (GIB, "GiB"))
        )
        found.append(Claim(LPLD, f"SRe2L's files, IPC {ipc}", f"{printed} GB", readings))
    return found
