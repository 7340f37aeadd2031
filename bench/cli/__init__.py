"""The command line: one module per verb. None imports torch itself; what computes imports it when called."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword

from bench.cli import screen
from bench.cli.parser import Parser
from bench.errors import UserError, printable
from bench.version import __version__

VERBS = (
    *("run", "status", "logs", "retry", "cancel", "report", "published", "storage", "list", "show", "diff"),
    *("reproduce", "export", "import", "check", "data", "doctor"),
)

_EPILOG = """examples:
  python -m bench run --methods hello,rded --ipc 1,10,50             the main job, on digits, offline
  python -m bench run --methods rded --ipc 10 --dry-run               the plan
  python -m bench run --methods hello --ipc 10 --dataset imagenet-1k --data-root /data --cluster slurm
  python -m bench status --watch                                      progress, and what failed
  python -m bench retry --memory 64                                   failed cells again, with more memory on Slurm
  python -m bench report --check                                      check that the boards follow from the records
"""


def command_line() -> Parser:
    """Return the parser of ``python -m bench``, with every verb."""
    parser = Parser(
        prog="bench",
        description="Dataset distillation weighed by what it really stores: accuracy against bytes of labels.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"distill-bench {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    for name in VERBS:
        module = import_module(f"bench.cli.{name}{'_' if iskeyword(name) else ''}")
        verb = verbs.add_parser(
            name,
            help=module.HELP,
            description=(module.__doc__ or "").strip(),
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.arguments(verb)
        verb.set_defaults(execute=module.execute)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 success, 1 failure, 2 an error the user can fix."""
    screen.prepare_output()
    parser = command_line()
    try:
        parsed = parser.parse_args(arguments)
        if parsed.verb is None:
            parser.print_help()
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
        sys.stderr.write(f"bench: {printable(f'{place}{error.strerror or error}')}; free it or choose another place\n")
        return 2
