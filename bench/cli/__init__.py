"""The command line: one module per verb. None imports torch itself; what computes imports it when called."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Container, Sequence
from importlib import import_module
from keyword import iskeyword

from bench.cli import screen
from bench.cli.parser import Parser
from bench.errors import UserError, printable
from bench.version import __version__

VERBS = {
    "run": "compute a grid and write its leaderboard",
    "status": "show what is done, running, queued and failed, and why",
    "logs": "show the log of a cell's Slurm task",
    "retry": "compute failed cells again",
    "cancel": "cancel Slurm tasks by cell, stage or glob",
    "report": "write or check the leaderboards",
    "published": "measured, published, Δ: the papers' numbers beside ours",
    "storage": "count label bytes by arithmetic alone",
    "list": "list methods, datasets, students, labels, protocols or suites",
    "show": "show the record of one cell, and its images",
    "diff": "explain why two numbers differ",
    "reproduce": "compute a row of a board again and compare",
    "export": "export a distilled set as a folder to publish",
    "import": "import a released distilled set, as method external:NAME",
    "check": "run the conformance suite on a method",
    "data": "describe a data set, or pack it for faster reading",
    "doctor": "check the environment, here and on the cluster",
}

_EPILOG = """examples:
  python -m bench run --methods hello,rded --ipc 1,10,50             the main job, on digits, offline
  python -m bench run --methods rded --ipc 10 --dry-run               the plan
  python -m bench run --methods hello --ipc 10 --dataset imagenet-1k --data-root /data --cluster slurm
  python -m bench status --watch                                      progress, and what failed
  python -m bench retry --memory 64                                   failed cells again, with more memory on Slurm
  python -m bench report --check                                      check that the boards follow from the records
"""


def command_line(loaded: Container[str] = VERBS) -> Parser:
    """Return the parser of ``python -m bench``; of the verbs, those that are ``loaded`` know their arguments."""
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="bench",
        description="Dataset distillation weighed by what it really stores: accuracy against bytes of labels.",
        epilog=_EPILOG,
        formatter_class=form,
    )
    parser.add_argument("--version", action="version", version=f"distill-bench {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    for name in VERBS:
        verb = verbs.add_parser(name, help=VERBS[name], formatter_class=form)
        if name in loaded:
            module = import_module(f"bench.cli.{name}{'_' if iskeyword(name) else ''}")
            verb.description, verb.epilog = (module.__doc__ or "").strip(), module.EXAMPLES
            verb.describe(module.ARGUMENTS)
            verb.set_defaults(execute=module.execute, **getattr(module, "DEFAULTS", {}))
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the words behind ``python -m bench``.

    Raises:
        UserError: an unknown word, or a value of another form.
    """
    return command_line(words).parse_args(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 success, 1 failure, 2 an error the user can fix."""
    screen.prepare_output()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if (parsed := parse(words)).verb is None:
            command_line(()).print_help()
            return 2
        return int(parsed.execute(parsed))
    except UserError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 2
    except KeyboardInterrupt as stop:
        sys.stderr.write(f"bench: stopped; {stop if str(stop) else 'the same command goes on from here'}\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `bench list | head` is no error
        return 0
    except OSError as error:  # of the surroundings: a full disk, a folder of others, no place for temporary files
        place = f"{error.filename}: " if error.filename else ""
        free = "free it or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        sys.stderr.write(f"bench: {printable(f'{place}{error.strerror or error}')}; {free}choose another place\n")
        return 2
