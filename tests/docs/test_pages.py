"""What the pages show: commands that the command line takes, Python that runs, links that lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import bench
from bench.cli import VERBS, command_line, run
from bench.cli.list import TABLES
from bench.conformance import MethodConformance
from bench.conformance import run as run_suite
from bench.exchange.reproduction import choose
from bench.planning.plan import plan
from bench.python_api import evaluation, running
from bench.report.results import load_results
from bench.slurm.profile import load
from tests.conftest import draw_classes
from tests.examples.test_plugin import installed as plugin_installed

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", flags=re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|&& )\s*(?:\.venv/bin/)?python -m bench +([^&#\n]+)", flags=re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in FENCED.findall(page.read_text("utf-8")) if found == language]


def commands() -> list[str]:
    """Return every command of the pages and of the help texts, without what is said beside it."""
    texts = [re.sub(r" *\\\n *", " ", block) for page in PAGES for kind in ("", "sh") for block in blocks(page, kind)]
    texts += [import_module(f"bench.cli.{name}{'_' if iskeyword(name) else ''}").EXAMPLES for name in VERBS]
    found = [re.split(r"  | \| ", match)[0].strip() for text in texts for match in COMMAND.findall(text)]
    assert len(found) > 100
    return list(dict.fromkeys(found))


installed = plugin_installed


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: None) -> Path:
    """A folder with the files that the pages name, and with the template package installed."""
    draw_classes(tmp_path / "pets", train=10, side=32)
    for path in (ROOT / "docs" / "profiles").iterdir():
        (tmp_path / "profiles").mkdir(exist_ok=True)
        (tmp_path / "profiles" / path.name).write_text(path.read_text())
    short = ROOT / "examples" / "plugin" / "example_methods" / "protocols" / "example-short.toml"
    (tmp_path / "my-protocol.toml").write_text(short.read_text().replace("example-short", "my-protocol"))
    (tmp_path / "resnet18.pth").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    return load_results((ROOT / "leaderboards").glob("*.records.jsonl"))


@pytest.mark.parametrize("line", commands())
def test_the_command_line_takes_it(line: str, place: Path, results: pd.DataFrame) -> None:
    arguments = command_line().parse_args(shlex.split(line))
    if arguments.verb == "run":
        elsewhere = (
            "/data" in line or arguments.teacher or arguments.teacher_trajectory or re.search(r"first|external", line)
        )
        if arguments.suite != "storage" and not elsewhere:
            assert all(plan(request).cells for request in run.requests(arguments))
    if arguments.verb == "reproduce":
        choose(arguments.row, results)
    if getattr(arguments, "profile", None):
        assert load(arguments.profile).resources


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", FENCED.sub("", page.read_text("utf-8")))
    generated = ROOT if page.parent.name == "docs" else page.parent  # docs/generate.py adds the boards to the site
    local = [one for one in targets if not one.startswith("http")]
    assert [one for one in local if not (page.parent / one).exists() and not (generated / one).exists()] == []


def test_snippets_are_files() -> None:
    named = [path for page in PAGES for path in re.findall(r"--8.+\"(.+?)(?:::\d+)?\"", page.read_text("utf-8"))]
    assert len(named) > 5 and [path for path in named if not (ROOT / path).is_file()] == []
    assert not any("--8 <" in page.read_text("utf-8") for page in PAGES), "a formatter broke a snippet"


def test_the_readme_is_short_and_its_method_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text("utf-8").splitlines()) <= 150
    names: dict[str, Any] = {"__name__": "first"}
    exec(blocks(readme, "python")[0], names)
    suite = type("Suite", (MethodConformance,), {"method": names["FirstImages"]})
    failed = {one.title: one.reason for one in run_suite(suite) if one.passed is False}
    assert failed.keys() <= {"module imports without torch"}  # it is in no module


def test_the_package_of_the_readme_installs_beside_other_files(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    (tmp_path / "pyproject.toml").write_text(blocks(ROOT / "README.md", "toml")[0])
    for name in ("first", "notes"):
        (tmp_path / f"{name}.py").touch()
    code = "import setuptools; setuptools.setup()"
    done = subprocess.run([sys.executable, "-c", code, "-q", "build_py", "-d", "out"], cwd=tmp_path, check=False)
    assert done.returncode == 0 and [path.name for path in (tmp_path / "out").iterdir()] == ["first.py"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``bench.evaluate`` trains for one epoch, ``bench.run`` only plans."""

    def evaluate(*tensors: Any, **more: Any) -> bench.Result:
        return evaluation.evaluate(*tensors, **more | {"seeds": [0], "settings": {"epochs": 1, "tests": 1}})

    monkeypatch.setattr(bench, "evaluate", evaluate, raising=False)
    monkeypatch.setattr(bench, "run", lambda **flags: running.run(**flags, dry_run=True, store="s"), raising=False)
    yield


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_runs(page: str, quick: None, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "leaderboards").symlink_to(ROOT / "leaderboards")
    names: dict[str, Any] = {
        "images": torch.zeros(10, 3, 16, 16, dtype=torch.uint8), "labels": torch.arange(10),
    }  # fmt: skip
    for block in blocks(ROOT / page, "python"):
        if "class " not in block:
            exec(block.replace('"cifar10"', '"digits"'), names)
    assert len(names["frame"]) > 100


def test_tables_and_help_are_generated() -> None:
    pages = "".join(page.read_text("utf-8") for page in PAGES)
    assert [
        name for name in (*(f"list {name}" for name in TABLES), "--help") if f"<!-- bench {name} -->" not in pages
    ] == []
