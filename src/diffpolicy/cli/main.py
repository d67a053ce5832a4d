"""`diffpolicy COMMAND`: finds the command, and turns bad input into one sentence and status 2."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Sequence

from diffpolicy import _signals
from diffpolicy._imports import working_folder
from diffpolicy._version import __version__
from diffpolicy.cli import (
    calibrate,
    compare,
    evaluate,
    export,
    plot,
    profile,
    replay,
    streams,
    surroundings,
    tasks,
    train,
    train_fleet,
)
from diffpolicy.cli import list as listing
from diffpolicy.cli.options import Parser, check_name, one_line
from diffpolicy.errors import InputError, WorkError

COMMANDS = (compare, train, train_fleet, evaluate, plot, replay, export, tasks, profile, calibrate, listing)


def parser() -> Parser:
    """All commands and their options; imports no torch."""
    top = Parser(prog="diffpolicy", description="Diffusion-based decision policies for edge AIGC offloading.")
    top.add_argument("--version", action="version", version=f"diffpolicy {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for module in COMMANDS:
        name = module.__name__.rsplit(".", 1)[-1].replace("_", "-")
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_options(command)
        command.set_defaults(run=module.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: its words; None: those of this process, whose streams and surroundings are then put in order first.

    Returns:
        Its exit status: 0 done, 2 wrong input, 130 after Ctrl-C, 143 after SIGTERM, 141 where nobody reads stdout any
        more, 1 anything else.
    """
    if argv is None:
        streams.prepare()
        surroundings.settle()
    warnings.showwarning = _warn  # type: ignore[assignment]
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except streams.OutputError as error:
        streams.discard_stdout()
        if error.broken_pipe:
            return 141  # as a shell says of a process that SIGPIPE ended, as it ends others here
        print(f"diffpolicy: cannot write to stdout: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        streams.discard_stdout()  # one that a caller has put there
        return 141


def _run(words: list[str]) -> int:
    try:
        for before, word in zip(["diffpolicy", *words], words, strict=False):
            option, equals, value = word.partition("=")
            if equals and option.startswith("--"):
                check_name(value, option)
            check_name(word, before)
        if not words:
            parser().print_help()
            return 0
        options = parser().parse_args(words)
        options.words = words
        # a user's functions may import when they are called, long after their own module was
        with _signals.terminated_at_once(), working_folder(last=True):
            status = int(options.run(options) or 0)
        sys.stdout.flush()
        return status
    except InputError as error:
        return _refuse(str(error))
    except (FloatingPointError, WorkError) as error:
        print(f"diffpolicy: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
        print(f"diffpolicy: stopped by {_signals.name(number)}", file=sys.stderr)
        return _signals.exit_status(number)
    except SystemExit:
        sys.stdout.flush()
        raise


def _warn(message: Warning | str, *_: object) -> None:
    """A warning as one sentence, without the source line that raised it."""
    print(f"diffpolicy: warning: {one_line(message)}", file=sys.stderr)


def _refuse(message: str) -> int:
    print(f"diffpolicy: {one_line(message)}", file=sys.stderr)
    return 2
