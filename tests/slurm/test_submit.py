"""Submission to a stand-in for Slurm: what the job scripts request, and the warning that none requests a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli import main
from bench.slurm import queue
from bench.slurm.profile import Resources
from bench.slurm.submit import accelerator_warning

SBATCH = """\
#!/bin/sh
here=$(dirname "$(dirname "$0")")
number=$(( 100 + $(ls "$here/scripts" | wc -l) ))
for last in "$@"; do :; done
cp "$last" "$here/scripts/$number.sh"
echo "Submitted batch job $number"
"""
RUN = ["run", "--methods", "random_real", "--labels", "hard", "--ipc", "1", "--seeds", "0", "--no-baselines"]
ON_SLURM = ["--cluster", "slurm", "--profile", "./plain.toml"]


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with stand-ins for Slurm's commands and a profile; what sbatch is given ends in this one."""
    commands = tmp_path / "bin"
    commands.mkdir()
    quiet = dict.fromkeys(("squeue", "sacct", "scontrol", "scancel", "srun"), "#!/bin/sh\nexit 0\n")
    for name, text in {**quiet, "sinfo": "#!/bin/sh\necho 'gpu gpu:a100:4'\n", "sbatch": SBATCH}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    (tmp_path / "plain.toml").write_text('partition = "gpu"\nminutes = 600\n')
    (tmp_path / "scripts").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    for name in ("SLURM_CONF", "SBATCH_GRES", "SBATCH_GPUS", "SBATCH_GPUS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "scripts"


def test_a_sweep_on_processors_is_announced(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "no task requests an accelerator, so all will compute on CPUs; partition gpu has gpu:a100:4"
    assert main([*RUN, *ON_SLURM, "--dry-run"]) == 0
    assert words in capsys.readouterr().out and not list(scripts.iterdir())
    assert main([*RUN, *ON_SLURM, "--detach"]) == 0
    assert words in capsys.readouterr().out
    assert not any("--g" in line for script in scripts.iterdir() for line in script.read_text().splitlines()[:20])
    assert main(["doctor", "--no-job", "--profile", "./plain.toml"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert words in shown and '→ gres = "gpu:1" in the profile or --device cuda' in shown


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_device_that_is_named_is_requested(device: str, scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, *ON_SLURM, "--detach", "--device", device]) == 0
    assert "accelerator" not in capsys.readouterr().out
    distill, evaluate, report = (path.read_text() for path in sorted(scripts.iterdir()))
    for script in (distill, evaluate):
        assert ("--gpus-per-node=1" in script) == (device == "cuda")
    assert "--gpus-per-node" not in report, "it computes nothing"


def test_the_boards_do_not_wait_for_tasks_that_help(scripts: Path) -> None:
    Path("plain.toml").write_text('[resources.split]\ncells = ["prepare", "distill"]\ntasks = 2\n')
    rded = ["run", "--methods", "rded", "--ipc", "1", "--seeds", "0", "--no-baselines", *ON_SLURM, "--detach"]
    assert main([*rded, "--device", "cpu"]) == 0
    events = [json.loads(line) for line in next(Path(".bench").glob("slurm/*/journal.jsonl")).read_text().splitlines()]
    own, helping = ([one["job"] for one in events if one.get("helps") == kind] for kind in (False, True))
    report = (scripts / f"{own.pop()}.sh").read_text()
    assert len(helping) == 2 and f"--dependency=afterany:{':'.join(own)}\n" in report


def test_large_images_are_not_left_to_cpus(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = [*RUN, "--dataset", "synthetic-imagenet-1k", "--students", "resnet18", *ON_SLURM, "--detach"]
    assert main(large) == 2
    assert "images of 224 px: no task requests an accelerator" in capsys.readouterr().err
    assert not list(scripts.iterdir())
    Path("plain.toml").write_text('gres = "gpu:8"\n')
    assert main(large) == 0
    assert all("--gres=gpu:1\n" in path.read_text() for path in scripts.iterdir()), "one works, one is requested"


def test_a_dry_run_shows_the_arrays_where_no_slurm_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    Path("plain.toml").write_text('gres = "gpu:8"\nprocesses = 4\n')
    given = ["run", "--methods", "sre2l", "--ipc", "1", "--seeds", "0", "--no-baselines", "--profile", "./plain.toml"]
    assert main([*given, "--dry-run", "--store", "new"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["plain.toml"], "a dry run writes nothing"
    shown = " ".join(capsys.readouterr().out.split())
    assert "job arrays (0 cells are in the queue already)" in shown
    assert "distill sre2l default gpu:4 1 × 4" in shown and "classification default gpu:1 1 " in shown


def test_a_line_break_in_a_profile_submits_nothing(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("plain.toml").write_text('partition = "gpu\\necho this line runs on the node #"\n')
    assert main([*RUN, *ON_SLURM, "--detach"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "plain.toml: partition: " in error and "line break" in error
    assert not list(scripts.iterdir())


def test_whoever_requests_one_hears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "run_command", lambda *_, **__: "cpu* (null)\ngpu gpu:h100:8\ngpu gpu:a100:4")
    plain, other = Resources(), Resources(partition="gpu")
    assert "partition" not in str(accelerator_warning([plain], "auto"))
    assert "partition gpu has gpu:h100:8, gpu:a100:4;" in str(accelerator_warning([plain, other], "auto"))
    assert accelerator_warning([plain, Resources(gres="gpu:1")], "auto") is None
    assert accelerator_warning([], "auto") is None
    students = Resources(cells=("evaluate",))
    assert "tasks of evaluate request no accelerator" in str(
        accelerator_warning([students, Resources(gres="gpu:1")], "auto", image_size=224)
    )
    confirmed = Resources(cells=("evaluate",), gres="")
    assert accelerator_warning([confirmed, Resources(gres="gpu:1")], "auto", image_size=224) is None
    monkeypatch.setenv("SBATCH_GPUS", "1")
    assert accelerator_warning([plain], "auto") is None
