"""Values of a profile: sbatch's own words and units, and what goes into a job script."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from bench.api import registry
from bench.errors import did_you_mean
from bench.planning.cells import TEACHER
from bench.store.cell import STAGES

REPORT = "report"  # the last job of a run, which writes the boards


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected no line break or other control character")
    return text


def _lines(value: Any) -> Any:
    return value.splitlines() if isinstance(value, str) else value


def _matching(cells: str) -> str:
    """Check a stage, ``STAGE:PLUG-IN`` or ``report``: what matches no cell would never be used."""
    methods = [*registry.METHODS]
    plugins = {"teacher": [TEACHER], "prepare": methods, "distill": methods, "evaluate": [*registry.EVALUATORS]}
    plugins["label"] = [*methods, TEACHER, "stored", "static"]
    known = [REPORT, *STAGES, *(f"{stage}:{name}" for stage, names in plugins.items() for name in names)]
    if cells not in known:
        stages = f"expected a stage ({', '.join(STAGES)}), STAGE:PLUG-IN or report"
        raise ValueError(stages + did_you_mean(cells, known))
    return cells


def _said(text: str) -> str:
    if not text:
        raise ValueError("expected a name; leave it out to request none")
    return text


def _accelerators(gres: str) -> str:
    """Check NAME[:TYPE][:COUNT], several with commas between; a type is no number (``gpu:-1``, ``gpu:1.5``)."""
    for entry in gres.split(",") if gres else ():
        if not re.fullmatch(r"[A-Za-z][\w/.-]*(:(?![\d.]+(:|$))\w[\w.+-]*)?(:\d{1,5})?", entry):
            raise ValueError('expected "gpu:1" or "gpu:a100:1", or "" for none')
    return gres


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def _minutes(value: Any) -> Any:
    """Read a time limit: minutes, or as sbatch has it (``2-00:00:00``, ``8:00:00``, ``30:00``)."""
    if not isinstance(value, str) or value.isdecimal():
        return _number(value)
    found = re.fullmatch(r"(?:(\d+)-(\d+)(?::(\d+))?(?::(\d+))?|(?:(\d+):)?(\d+):(\d+))", value.strip())
    if found is None:
        raise ValueError('expected minutes, or "days-hours:minutes:seconds" as in "2-00:00:00"')
    days, day_hours, day_minutes, day_seconds, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return (days * 24 + day_hours + hours) * 60 + day_minutes + minutes + (day_seconds + seconds > 0)


def _gigabytes(value: Any, unit: str = "G") -> Any:
    """Read an amount of memory: gigabytes, or as sbatch has it (``64G``, ``64000M``)."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(value).strip(), re.IGNORECASE)
    if found is None:
        raise ValueError('expected gigabytes, or as in "64G"')
    return float(found[1]) * 1024.0 ** ("KMGT".index((found[2] or unit).upper()) - 2)


MOST = 1_000_000
Cells = Annotated[str, AfterValidator(_matching)]
Shell = Annotated[str, AfterValidator(lambda text: _printable(re.sub(r"[\n\t]", " ", text)) and text)]
ShellLines = Annotated[tuple[Shell, ...], BeforeValidator(_lines)]
Text = Annotated[str, AfterValidator(_printable)]  # goes into a line of the job script
Line = Annotated[Text, AfterValidator(_said)]
Gres = Annotated[Text, AfterValidator(_accelerators)]
Whole = Annotated[int, BeforeValidator(_number), Field(ge=0, le=MOST)]
Count = Annotated[Whole, Field(ge=1)]
Gigabytes = Annotated[float, BeforeValidator(_gigabytes), Field(gt=0, le=MOST)]
Minutes = Annotated[int, BeforeValidator(_minutes), Field(ge=1, le=366 * 24 * 60)]  # a year; no cluster allows more
Duration = Annotated[float, BeforeValidator(_number), Field(ge=0, le=MOST)]


def in_our_words(values: Any) -> Any:
    """Translate sbatch's options, e.g. ``time``, ``mem`` and ``gpus-per-node``, to the fields of a request."""
    if not isinstance(values, dict):
        return values
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = key.removeprefix("--").replace("-", "_")
        if name in _INSTEAD:
            raise ValueError(f"{key} is not used: expected {_INSTEAD[name]}")
        if name in ("gpus", "gpus_per_node", "gpus_per_task"):
            if isinstance(value, bool) or not re.fullmatch(r"([^\W\d][\w.-]*:)?\d+", str(value)):
                raise ValueError(f'{key}: expected a count, as in 1 or "a100:1", not {value!r}')
            value = f"gpu:{value}"
        elif name == "mem":
            value = _gigabytes(value, "M")
        elif name == "nodes":
            if value not in (1, "1"):
                raise ValueError("nodes: all processes of a cell are on one node; leave it out")
            continue
        name = _OURS.get(name, name)
        if name in found:
            raise ValueError(f"{key}: {name} is said twice")
        found[name] = value
    return found


_OURS = {
    "time": "minutes", "mem": "memory_gb", "cpus_per_task": "cpus", "ntasks": "processes",
    "ntasks_per_node": "processes", **dict.fromkeys(("gpus", "gpus_per_node", "gpus_per_task"), "gres"),
}  # fmt: skip
_INSTEAD = {
    **dict.fromkeys(("mem_per_cpu", "mem_per_gpu"), "memory_gb = 64, per node"),
    **dict.fromkeys(("array", "array_parallelism"), "throttle = 64, parallel tasks, and max_array"),
    **dict.fromkeys(("output", "error", "job_name", "dependency"), "nothing: it is chosen by the run"),
}
