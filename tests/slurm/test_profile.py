"""Profiles of clusters: where they are found, what they may say, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import UserError
from bench.slurm.profile import Profile, load

WHOLE = """
partition = "gpu"
account = "vision"
wckey = "bench"
setup = ["module load cuda"]
throttle = 8

[resources.heavy]
cells = ["teacher", "distill:sre2l"]
gres = "gpu:4"
processes = 4
memory_gb = 64

[resources.last]
cells = ["report"]
partition = "cpu"
"""


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def written(text: str, path: str = "profiles/here.toml") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return Path(path).stem


def test_nothing_is_asked_for_without_a_profile() -> None:
    assert load(None) == Profile()
    assert Profile().resources_of("default", "teacher").partition is None


def test_a_profile_is_found_beside_the_work_before_the_users_own(tmp_path: Path) -> None:
    written('partition = "theirs"', "config/distill-bench/profiles/here.toml")
    assert load("here").partition == "theirs"
    written(WHOLE)
    profile = load("here")
    assert profile.partition == "gpu"
    assert profile.name is not None
    assert load(profile.name) == profile == load("profiles/here.toml"), "found again from anywhere"


def test_a_class_is_the_most_special_that_names_the_cells() -> None:
    profile = load(written(WHOLE))
    assert profile.class_of("teacher", "teacher") == "heavy"
    assert profile.class_of("distill", "sre2l") == "heavy"
    assert profile.class_of("distill", "rded") == "default"
    heavy, last = profile.resources_of("heavy", "teacher"), profile.resources_of(profile.class_of("report"), "report")
    assert (heavy.partition, heavy.account, heavy.gres, heavy.processes) == ("gpu", "vision", "gpu:4", 4)
    assert (last.partition, last.account, last.gres) == ("cpu", "vision", None)
    assert last.minutes is not None and last.minutes > 10, "ten minutes or less always count as timed out"


def test_a_short_job_is_not_warned_as_it_begins() -> None:
    assert Profile(minutes=60).warning_of(Profile(minutes=60).resources_of("default", "label")) == 120
    assert Profile(minutes=2).warning_of(Profile(minutes=2).resources_of("default", "label")) == 30
    assert Profile(minutes=1, warning_seconds=10).warning_of(Profile(minutes=1).resources_of("x", "label")) == 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('time = "2-00:00:00"', {"minutes": 2880}),
        ('time = "1-12"', {"minutes": 36 * 60}),
        ('time = "8:00:00"', {"minutes": 480}),
        ('minutes = "30:01"', {"minutes": 31}),
        ("time = 90", {"minutes": 90}),
        ('mem = "64G"', {"memory_gb": 64.0}),
        ("mem = 2048", {"memory_gb": 2.0}),
        ('memory_gb = "500M"', {"memory_gb": 500 / 1024}),
        ("gpus_per_node = 1", {"gres": "gpu:1"}),
        ('gpus-per-node = "a100:2"', {"gres": "gpu:a100:2"}),
        ("cpus-per-task = 8", {"cpus": 8}),
        ("nodes = 1", {}),
        ('exclude = "n[1-3]"', {"exclude": "n[1-3]"}),
        *((f"gres = '{one}'", {"gres": one}) for one in ("gpu", "gpu:2", "gpu:3g.20gb:1", "gpu:2080ti", "gres/gpu:1")),
        ("gres = 'gpu:a100:4,tmpdir:8'", {"gres": "gpu:a100:4,tmpdir:8"}),
        ("gres = ''", {"gres": ""}),
        ('setup = "module load cuda\\nulimit -n 4096"', {"setup": ("module load cuda", "ulimit -n 4096")}),
    ],
)
def test_slurms_own_words_are_understood(text: str, expected: dict[str, object]) -> None:
    profile = load(written(text))
    assert profile.model_dump(exclude_defaults=True, exclude={"name"}) == expected
    if "setup" not in expected:
        heavy = load(written(f"[resources.heavy]\ncells = ['teacher']\n{text}")).resources_of("heavy", "teacher")
        assert expected.items() <= heavy.model_dump().items()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('partitoin = "gpu"', "unknown key in profiles/here.toml 'partitoin' (did you mean 'partition'?)"),
        ("[resources.a]\ncpu = 4", "unknown key in profiles/here.toml: [resources.a] 'cpu' (did you mean 'cpus'?)"),
        ("[resources.a]\ncpus = 4", 'profiles/here.toml: [resources.a] is of no cells; add a line such as cells = ["'),
        ("[resources.a]\ncells = ['traecher']", "expected a stage (teacher, prepare, distill, label, evaluate)"),
        ("[resources.a]\ncells = ['distill:rdedd']", "profiles/here.toml: [resources.a]: cells.0: expected a stage"),
        ("[resources.a]\ncells = ['distill:rdedd']", "or report (did you mean 'distill:rded'?), not 'distill:rdedd'"),
        *(
            (f'{key} = "a\\nb"', f"profiles/here.toml: {key}: expected no line break")
            for key in ("partition", "account", "qos", "constraint", "gres", "wckey")
        ),
        ('[resources.a]\ngres = "gpu:1\\u0000"', "[resources.a]: gres: expected no line break"),
        ('time = "tomorrow"', 'minutes: expected minutes, or "days-hours:minutes:seconds" as in "2-00:00:00"'),
        ('time = "1:00"\nminutes = 3', "minutes: minutes is said twice"),
        ('mem_per_cpu = "4G"', "mem_per_cpu is not used: expected memory_gb = 64, per node"),
        ("gpus_per_node = -1", 'gpus_per_node: expected a count, as in 1 or "a100:1", not -1'),
        ("gpus = true", "gpus: expected a count"),
        *(
            (f"gres = '{gres}'", f'gres: expected "gpu:1" or "gpu:a100:1", or "" for none, not \'{gres}\'')
            for gres in ("gpu:-1", "gpu:a100:-1", "gpu:", "gpu::1", "gpu:1.5", "gpu:1:2", "1", "gpu 1", "gpu:1000000")
        ),
        *(
            (f"{key} = {number}", f"{key}: ")
            for key in (
                "processes",
                "tasks",
                "cpus",
                "memory_gb",
                "minutes",
                "max_array",
                "throttle",
                "warning_seconds",
            )
            for number in (-1, 0, 10**12, "true", "nan", "inf", "1.5e9")
        ),
        *((f"{key} = {number}", f"{key}: ") for key in ("requeues", "pack_minutes") for number in (-1, "inf", "true")),
        ("[resources.a]\npack = 0", "[resources.a]: pack: Input should be greater than or equal to 1"),
        ("minutes = 1000000", "minutes: Input should be less than or equal to 527040, not 1000000"),
        ('time = "9999-00"', "minutes: Input should be less than or equal to 527040"),
        ('partition = ""', "partition: expected a name; leave it out"),
        ("nodes = 2", "all processes of a cell are on one node"),
        ('setup = ["a\\u001bb"]', "setup.0: expected no line break"),
        ("throttle = 0", "throttle: Input should be greater than or equal to 1, not 0"),
        ("resources = 3", "expected tables such as [resources.heavy]"),
        ("partition = gpu", "the profile file profiles/here.toml can't be read"),
        ("[resources.a]\ncells = ['label']\n[resources.b]\ncells = ['label']", "label is in more than one"),
    ],
)
def test_a_wrong_profile_is_said_in_one_line(text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        load(written(text))
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_profile_that_is_not_there() -> None:
    with pytest.raises(UserError, match="no profiles in profiles or .*config/distill-bench/profiles"):
        load("mine")
    written(WHOLE, "profiles/mine.toml")
    with pytest.raises(UserError, match="unknown profile 'mien' .did you mean 'mine'"):
        load("mien")
    with pytest.raises(UserError, match="No such file"):
        load("profiles/other.toml")


def test_the_profile_of_the_page_is_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "your-data.md").read_text(encoding="utf-8")
    profile = load(written(page.split("```toml\n")[1].split("```")[0]))
    assert (profile.minutes, profile.memory_gb, profile.gres, profile.cpus) == (2880, 64.0, "gpu:1", 8)
