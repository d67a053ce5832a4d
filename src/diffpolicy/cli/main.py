"""`diffpolicy COMMAND`: finds the command, and turns bad input into one sentence and status 2."""

from __future__ import annotations

import argparse
import functools
import signal
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType

from diffpolicy import _signals
from diffpolicy._imports import working_folder
from diffpolicy._version import __version__
from diffpolicy.cli import (
    advise,
    bench_service,
    calibrate,
    compare,
    completion,
    demo,
    evaluate,
    export,
    known,
    plot,
    profile,
    replay,
    serve,
    streams,
    surroundings,
    tasks,
    train,
    train_fleet,
    worker,
)
from diffpolicy.cli import list as listing
from diffpolicy.cli.options import check_name, say
from diffpolicy.cli.parsing import Parser, one_line
from diffpolicy.errors import InputError, WorkError

GROUPS: Mapping[str, Sequence[ModuleType]] = {
    "on any problem": (compare, train, evaluate, plot),
    "on the offloading problem": (replay, tasks, train_fleet, advise),
    "measuring servers": (profile, calibrate),
    "serving": (serve, worker, demo, bench_service),
    "exporting": (export,),
    "help": (listing, completion),
}
"""All commands, as help shows them."""
COMMANDS = tuple(module for modules in GROUPS.values() for module in modules)
EXAMPLES = (
    "diffpolicy compare",
    "diffpolicy train d2sac --problem mine:problem --episodes 256 --out runs/mine",
    "diffpolicy evaluate runs/mine random --problem mine:problem",
    "diffpolicy list methods",
)


def command_name(module: ModuleType) -> str:
    """What is typed for a command's module."""
    return module.__name__.rsplit(".", 1)[-1].replace("_", "-")


def parser() -> Parser:
    """All commands and their options; imports no torch."""
    top = Parser(
        prog="diffpolicy",
        usage="diffpolicy COMMAND ...",
        description=f"Diffusion policies that decide: train, compare and deploy them.\n\n{_overview()}",
        after=lambda: _examples(EXAMPLES) + "\n\ndiffpolicy COMMAND --help lists the options of a command.",
    )
    top.add_argument("--version", action="version", version=f"diffpolicy {__version__}")
    commands = top.add_subparsers(
        metavar="COMMAND", required=True, dest="command", help=argparse.SUPPRESS, prog="diffpolicy"
    )
    for module in COMMANDS:
        help_ = module.HELP[0].upper() + module.HELP[1:] + "."
        command = commands.add_parser(command_name(module), description=help_)
        module.add_options(command)
        command.usage = _usage(command)
        command.after = functools.partial(_after, command, module.EXAMPLES)
        command.set_defaults(run=module.run)
    return top


def _overview() -> str:
    """The commands in their groups, a line each."""
    lines = []
    for title, modules in GROUPS.items():
        lines += [f"{title}:", *(f"  {command_name(module):<13}  {module.HELP}" for module in modules), ""]
    return "\n".join(lines).rstrip()


def _usage(command: Parser) -> str:
    """What must be typed, in a line: the options stand below it."""
    words = []
    for action in command._actions:
        word = known.word_of(action) or action.dest.upper()
        if action.required and action.option_strings:
            words.append(f"{action.option_strings[0]} {word}")
        elif not action.option_strings:
            words.append({"+": f"{word}...", "?": f"[{word}]"}.get(str(action.nargs), word))
    return " ".join([command.prog, *words, "[options]"])


def _after(command: Parser, examples: Sequence[str]) -> str:
    """What stands at the end of a command's help: names that may stand for its words, then examples."""
    return "\n\n".join([*known.told(command), _examples(examples)])


def _examples(lines: Sequence[str]) -> str:
    return "\n".join(["examples:", *(f"  {line}" for line in lines)])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: its words; None: those of this process, whose streams and surroundings are then put in order first.

    Returns:
        Its exit status: 0 done, 2 wrong input, 130 after Ctrl-C, 143 after SIGTERM, 141 where nobody reads stdout any
        more, 1 anything else.
    """
    if argv is None:
        _signals.end_on_signals(signal.SIGTERM)  # before and after the command, which listens by itself
        streams.prepare()
        surroundings.settle()
    warnings.showwarning = _warn  # type: ignore[assignment]
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _told(words)
    finally:
        if argv is None:
            _signals.end_on_signals(*_signals.NUMBERS)  # nothing is left to be saved


def _told(words: list[str]) -> int:
    """Runs a command, and its status where nobody takes what it says."""
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
    verbose = False
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
        options.words, verbose = words, options.verbose
        # a user's functions may import when they are called, long after their own module was
        with _signals.terminated_at_once(), working_folder(last=True):
            status = int(options.run(options) or 0)
        sys.stdout.flush()
        for sentence in vars(options).get("old", []):  # of what went well: a mistake is told in one sentence
            say(f"diffpolicy: {sentence}")
        return status
    except InputError as error:
        _trace(verbose)
        return _refuse(str(error))
    except (FloatingPointError, WorkError) as error:
        _trace(verbose)
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


def _trace(verbose: bool) -> None:
    """Where an error arose, for who asked to be told."""
    if verbose:
        traceback.print_exc()


def _refuse(message: str) -> int:
    print(f"diffpolicy: {one_line(message)}", file=sys.stderr)
    return 2
