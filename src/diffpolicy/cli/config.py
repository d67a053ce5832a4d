"""Options of a command out of a YAML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffpolicy import _validate as check
from diffpolicy._read import show_path
from diffpolicy._suggest import meant
from diffpolicy.cli import options as opt
from diffpolicy.errors import InputError


def read_config(options: argparse.Namespace, command: opt.Parser) -> None:
    """Takes options from the file of `--config`, where they were not given on the command line.

    Args:
        options: of the command, which are changed. command: its parser.

    Raises:
        InputError: it is no such file, or an option is unknown or does not take the value.
    """
    from diffpolicy import _yaml

    path = Path(options.config)
    data = _yaml.parse(check.read_text(path, "config file"), f"config file {show_path(path)}", texts=True)
    if not isinstance(data, dict):
        raise InputError(f"config file {path} must hold options and values, got {check.show(data)}")
    actions = {option: action for action in command._actions for option in action.option_strings}
    given = {word.split("=", 1)[0] for word in options.words}
    for key, value in data.items():
        option = "--" + str(key).replace("_", "-")
        action = actions.get(option)
        where = f"config file {path}, option {key}"
        if action is None or action.dest in ("help", "config"):
            near = meant(option, command.spellings())
            raise InputError(f"config file {path} has the unknown option {check.show(key)}{near}")
        if given & {option, *_others(action, command)}:
            continue
        if action.nargs == 0:
            if value not in ("true", "false"):
                raise InputError(f"{where} must be true or false, got {check.show(value)}")
            if value == "false":
                continue
            value = action.const
        elif isinstance(action.default, list):
            if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
                raise InputError(f"{where} must be a list of strings, got {check.show(value)}")
        elif not isinstance(value, str):
            raise InputError(f"{where} must be one value, got {check.show(value)}")
        elif callable(action.type):
            try:
                value = action.type(value)
            except argparse.ArgumentTypeError as error:
                raise InputError(f"{where} {error}") from None
        if action.choices is not None and action.nargs != 0 and value not in action.choices:
            raise InputError(f"{where} must be one of {', '.join(action.choices)}, got {check.show(value)}")
        if isinstance(value, str):
            opt.check_name(value, where)
        if isinstance(action, opt.OldSpelling):
            action.take(options, value)
        else:
            setattr(options, action.dest, value)


def _others(action: argparse.Action, command: opt.Parser) -> list[str]:
    """Every spelling that sets what an action sets."""
    return [spelling for each in command._actions if each.dest == action.dest for spelling in each.option_strings]
