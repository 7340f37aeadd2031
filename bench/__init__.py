"""distill-bench: dataset distillation weighed by what it really stores.

The Python API, which loads torch and pandas when it is called and not before:

- ``bench.evaluate(images, labels, dataset="cifar10")`` trains students on tensors and tests them;
- ``bench.run(methods=["rded"], ipc=[1, 10])`` computes a grid as the command line does;
- ``bench.load_results(path)`` reads the records of a store or of boards as a pandas DataFrame.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bench.version import __version__

if TYPE_CHECKING:
    from bench.errors import UserError
    from bench.python_api.evaluation import Result, evaluate
    from bench.python_api.running import run
    from bench.report.results import load_results

__all__ = ["Result", "UserError", "__version__", "evaluate", "load_results", "run"]

_HOMES = {
    "Result": "bench.python_api.evaluation",
    "UserError": "bench.errors",
    "evaluate": "bench.python_api.evaluation",
    "load_results": "bench.report.results",
    "run": "bench.python_api.running",
}


def __getattr__(name: str) -> Any:
    """Load a part of the API on first use, so that importing ``bench`` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
