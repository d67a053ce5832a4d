"""`diffpolicy completion`: a script by which a shell completes commands, options and names."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass

from diffpolicy.cli import options as opt
from diffpolicy.cli.known import KNOWN, word_of

HELP = "print a script that lets a shell complete commands, options and names"
EXAMPLES = (
    'eval "$(diffpolicy completion bash)"                                       # in ~/.bashrc',
    'autoload -U compinit; compinit; eval "$(diffpolicy completion zsh)"        # in ~/.zshrc',
    "diffpolicy completion fish > ~/.config/fish/completions/diffpolicy.fish",
)
SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class Word:
    """What may be typed in a command.

    Args:
        spellings: of an option; empty: what stands without one. takes: whether a value follows.
        values: that may stand there, as far as there are names. told: its help.
    """

    spellings: tuple[str, ...]
    takes: bool
    values: tuple[str, ...]
    told: str


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Loads no torch."""
    from diffpolicy.cli.main import parser

    script = fish(words_of(parser())) if options.shell == "fish" else bash(words_of(parser()))
    if options.shell == "zsh":
        script = f"autoload -U +X bashcompinit && bashcompinit\n{script}"
    if options.json:
        opt.print_json({"shell": options.shell, "script": script}, options)
    else:
        print(script, end="")


def words_of(parser: opt.Parser) -> dict[str, list[Word]]:
    """What may be typed after each command."""
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return {
        name: [_word(action) for action in command._actions if action.help != argparse.SUPPRESS]
        for name, command in subparsers.choices.items()
    }


def _word(action: argparse.Action) -> Word:
    word = word_of(action)
    values = [str(choice) for choice in action.choices or ()] or (KNOWN[word].names() if word in KNOWN else [])
    return Word(tuple(action.option_strings), action.nargs != 0, tuple(values), action.help or "")


def bash(commands: dict[str, list[Word]]) -> str:
    """A script for bash, which zsh takes too; where there are no names, files are completed."""
    cases = []
    for command, words in commands.items():
        options = " ".join(spelling for word in words for spelling in word.spellings)
        free = " ".join(value for word in words if not word.spellings for value in word.values)
        cases.append(f"    {command}) options={shlex.quote(options)}; names={shlex.quote(free)}")
        cases.append('      case "$before" in')
        by_values: dict[str, list[str]] = {}
        for word in words:
            if word.spellings and word.takes:
                by_values.setdefault(" ".join(word.values), []).extend(word.spellings)
        cases += [f"        {'|'.join(spelt)}) options=; names={shlex.quote(v)};;" for v, spelt in by_values.items()]
        cases.append("      esac;;")
    return "\n".join(
        [
            "_diffpolicy() {",
            "  local current before options names",
            "  # names such as pretrained:live hold what bash takes for the end of a word",
            '  current="${COMP_LINE:0:COMP_POINT}"; current="${current##* }"',
            '  before="${COMP_LINE:0:COMP_POINT}"; before="${before% *}"; before="${before##* }"',
            '  case "${COMP_WORDS[1]}" in',
            *cases,
            f"    *) options=--help; names={shlex.quote(' '.join(commands))};;",
            "  esac",
            '  [[ "$current" == -* ]] || options=',
            '  COMPREPLY=($(compgen -W "$options $names" -- "${current##*,}"))',
            '  if [[ "$current" == *,* ]]; then COMPREPLY=("${COMPREPLY[@]/#/${current%,*},}"); fi',
            '  if [[ "$current" == *:* && "$COMP_WORDBREAKS" == *:* ]]; then',
            '    COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}")',
            "  fi",
            "}",
            "complete -o default -F _diffpolicy diffpolicy",
            "",
        ]
    )


def fish(commands: dict[str, list[Word]]) -> str:
    """A script for fish; where there are no names, files are completed."""
    names = shlex.quote(" ".join(commands))
    lines = [f"complete -c diffpolicy -f -n __fish_use_subcommand -a {names}"]
    for command, words in commands.items():
        here = f"complete -c diffpolicy -n '__fish_seen_subcommand_from {command}'"
        for word in words:
            spelt = " ".join(f"-l {s[2:]}" if s.startswith("--") else f"-s {s[1:]}" for s in word.spellings)
            takes = " -r" if word.spellings and word.takes else ""
            values = f" -a {_fish(' '.join(word.values))}" if word.values else ""
            if spelt or values:
                lines.append(f"{here} {spelt}{takes}{values} -d {_fish(word.told)}".replace("  ", " "))
    return "\n".join([*lines, ""])


def _fish(text: str) -> str:
    """A text in fish's quotes."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
