"""`diffpolicy COMMAND`: finds the command, and turns bad input into one sentence and status 2."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from diffpolicy import _signals
from diffpolicy._version import __version__
from diffpolicy.cli import calibrate, compare, evaluate, export, profile, replay, tasks, train, train_fleet
from diffpolicy.cli.options import Parser
from diffpolicy.errors import InputError

COMMANDS = (compare, train, train_fleet, evaluate, replay, export, tasks, profile, calibrate)


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

    Returns:
        Its exit status: 0 done, 2 wrong input, 130 after Ctrl-C, 143 after SIGTERM, 1 anything else.
    """
    warnings.showwarning = _warn  # type: ignore[assignment]
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        options = parser().parse_args(words)
        options.words = words
        with _signals.terminated_at_once():
            status = int(options.run(options) or 0)
        sys.stdout.flush()
        return status
    except InputError as error:
        return _refuse(str(error))
    except FloatingPointError as error:
        print(f"diffpolicy: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
        print(f"diffpolicy: stopped by {_signals.name(number)}", file=sys.stderr)
        return _signals.exit_status(number)
    except BrokenPipeError:
        _close_stdout()
    except SystemExit:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _close_stdout()
        raise


def _warn(message: Warning | str, *_: object) -> None:
    """A warning as one sentence, without the source line that raised it."""
    print(f"diffpolicy: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _refuse(message: str) -> int:
    print(f"diffpolicy: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _close_stdout() -> NoReturn:
    """The reader has gone; nothing more can be printed, and the interpreter must not try."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    sys.exit(1)
