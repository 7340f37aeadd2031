"""List the methods, data sets, students, label choices, protocols or suites that can be chosen."""

from __future__ import annotations

import argparse

from bench.api import architectures, catalogue, registry
from bench.api.stored.codec import FORMATS
from bench.cli import screen
from bench.planning.label_choices import EXPLAINED, parse
from bench.planning.protocols import all_protocols
from bench.planning.suites import STORAGE, names, suite
from bench.storage_calculator.request import SUITE

Listing = tuple[list[str], list[list[str]], list[str]]  # columns, rows, and the columns that hold numbers

ARGUMENTS = """
WHAT {methods,datasets,students,labels,protocols,suites}
"""
EXAMPLES = """examples:
  python -m bench list methods
  python -m bench list protocols
"""


def execute(arguments: argparse.Namespace) -> int:
    """Run ``bench list``."""
    columns, lines, right = TABLES[arguments.what]()
    screen.console().print(screen.table(columns, lines, right=right))
    return 0


def _methods() -> Listing:
    infos = [method.info for method in registry.METHODS.usable.values()]
    lines = [[i.name, i.title, parse("native", i).title(i.labels), "yes" if i.baseline else "", i.paper] for i in infos]
    return ["name", "title", "native labels", "baseline", "paper"], lines, []


def _datasets() -> Listing:
    infos = [catalogue.dataset(name) for name in catalogue.names()]
    numbers = [[i.classes, i.train_images, i.test_images, i.smallest_class, i.image_size] for i in infos]
    lines = [[i.name, i.title, *map(str, row)] for i, row in zip(infos, numbers, strict=True)]
    for name, plugin in catalogue.PLUGINS.usable.items():
        if plugin.argument:
            lines.append([f"{name}:{plugin.argument}", plugin.title, "", "", "", "", ""])
    columns = ["classes", "train", "test", "largest IPC", "px"]
    return ["name", "title", *columns], lines, columns


def _students() -> Listing:
    known = architectures.descriptions()
    for evaluator in registry.EVALUATORS.usable.values():
        known |= evaluator.students
    return ["name", "description"], [[name, text] for name, text in known.items()], []


def _labels() -> Listing:
    known = {**EXPLAINED, **{f"stored:{name}": numbers.title for name, numbers in FORMATS.usable.items()}}
    return ["--labels", "description"], [[name, text] for name, text in known.items()], []


def _protocols() -> Listing:
    found = all_protocols().values()
    lines = [[p.name, str(p.version), p.evaluator, p.track, ", ".join(p.datasets) or "any", p.title] for p in found]
    return ["name", "version", "evaluator", "track", "data sets", "title"], lines, []


def _suites() -> Listing:
    found = {name: suite(name) for name in names()}
    lines = [[name, one.title, one.source, ", ".join(one.full.datasets)] for name, one in found.items()]
    lines.append([STORAGE, "Label bytes by arithmetic", "HeLlO (arXiv 2408.08201), Figure 1", str(SUITE.dataset)])
    return ["--suite", "title", "source", "data sets"], lines, []


TABLES = {
    "methods": _methods,
    "datasets": _datasets,
    "students": _students,
    "labels": _labels,
    "protocols": _protocols,
    "suites": _suites,
}
