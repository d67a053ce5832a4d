"""What was called otherwise before still works, says so where it is used, and stands on the page of releases."""

import argparse
import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from diffpolicy._deprecated import MOVED, OLD_KEYWORDS, OLD_NAMES
from diffpolicy._identity import difference
from diffpolicy.cli.main import parser
from diffpolicy.cli.parsing import OldSpelling
from diffpolicy.errors import InputError
from diffpolicy.methods import SACMethod, parse_method
from diffpolicy.networks import MLP, CriticEnsemble, MLPDenoiser

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "releasing.md").read_text(encoding="utf-8")


def found(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("old", OLD_NAMES)
def test_an_old_name_warns_and_is_the_new_thing(old):
    with pytest.warns(DeprecationWarning, match=f"{old} is {OLD_NAMES[old]} now"):
        thing = found(old)
    assert thing is found(OLD_NAMES[old])
    module, _, name = old.rpartition(".")
    assert name not in getattr(importlib.import_module(module), "__all__", ())
    assert old in PAGE


def test_the_users_line_is_told_where_the_name_is_imported():
    code = "import warnings; warnings.simplefilter('always')\nfrom diffpolicy import ChoicePolicy"
    for path in ("diffpolicy", "diffpolicy.policies"):
        line = code.replace("from diffpolicy ", f"from {path} ")
        done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
        assert f"<string>:2: DeprecationWarning: {path}.ChoicePolicy" in done.stderr


def test_an_old_path_in_a_methods_file_warns_of_the_file_and_is_read():
    text = (
        "class_path: diffpolicy.training.methods.SACMethod\n"
        "init_args:\n  transitions: diffpolicy.edge.transitions.task_transitions\n"
        "  learning_rates: {actor: 0.1, critic: 0.1}\n"
    )
    with pytest.warns(FutureWarning) as seen:
        made = parse_method(text, "mine.yaml")
    assert type(made) is SACMethod
    said = " ".join(str(warning.message) for warning in seen)
    assert "mine.yaml: class_path" in said
    assert "mine.yaml: transitions" in said
    assert "diffpolicy.methods.sac.SACMethod" in said


def test_every_old_path_is_something_today():
    for old, now in MOVED.items():
        assert importlib.import_module(now) if old == "diffpolicy.edge.transitions" else found(now)
        assert old in PAGE
    assert difference("diffpolicy.edge.transitions:a", "diffpolicy.edge.env.transitions:a") is None


def test_a_keyword_of_before_warns_and_is_read_in_files_without_a_word():
    with pytest.warns(DeprecationWarning, match="CriticEnsemble: stack is agents now") as seen:
        critic = CriticEnsemble(3, 2, stack=4)
    assert seen[0].filename == __file__
    assert critic.agents == 4
    with pytest.raises(InputError, match="stack is agents now"):
        MLP(3, 2, stack=4, agents=4)
    told = {**MLPDenoiser(3, 2, 5, agents=2).to_dict(), "stack": 4}
    del told["agents"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert MLPDenoiser.from_dict(told).agents == 4
        assert difference({"stack": 4, "steps": 5}, {"agents": 4, "steps": 5}) is None
    assert difference({"stack": 4}, {"agents": 2}) == ("agents", 4, 2)
    for old, now in OLD_KEYWORDS.items():
        assert f"`{old}=`" in PAGE
        assert f"`{now}=`" in PAGE


def test_an_attribute_of_before_warns_and_is_the_new_one():
    denoiser, critic = MLPDenoiser(3, 2, 5, agents=4), CriticEnsemble(3, 2, agents=4)
    for thing, name, value in (
        (denoiser, "stack", 4),
        (denoiser.embedding, "stack", 4),
        (denoiser.of_x, "stacked", True),
        (critic, "stack", 4),
    ):
        with pytest.warns(DeprecationWarning, match=f"{type(thing).__name__}.{name} is ") as seen:
            assert getattr(thing, name) == value
        assert seen[0].filename == __file__


class TakesStack(MLPDenoiser):
    """A user's, of before."""

    def __init__(self, *args, stack=None, **options):
        super().__init__(*args, stack=stack, **options)
        self.stack = stack


@pytest.mark.filterwarnings("ignore:.*stack is agents now:DeprecationWarning")
@pytest.mark.parametrize("key", ["stack", "agents"])
def test_a_subclass_that_takes_a_keyword_of_before_is_read_from_a_file(key):
    told = MLPDenoiser(3, 2, 5, agents=4).to_dict()
    made = TakesStack.from_dict({**{k: v for k, v in told.items() if k != "agents"}, key: 4})
    assert (made.agents, made.stack) == (4, 4)


def test_old_options_stand_on_the_page():
    commands = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    old = {
        (name, action.option_strings[0], action.instead.split()[0])
        for name, command in commands.items()
        for action in command._actions
        if isinstance(action, OldSpelling)
    }
    assert len(old) > 5
    for command, option, instead in old:
        assert f"`{command} {option}`" in PAGE
        assert f"`{instead}" in PAGE
