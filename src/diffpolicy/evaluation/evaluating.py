"""`evaluate`: policies of a problem on identical episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from diffpolicy import _limits
from diffpolicy import _validate as check
from diffpolicy._text_table import render
from diffpolicy._version import __version__
from diffpolicy.environments import Cost, Problem
from diffpolicy.environments.checks import check_is_policy
from diffpolicy.environments.entrants import make_policy, rules_of
from diffpolicy.environments.env_problem import EnvProblem
from diffpolicy.environments.repeating import repeats
from diffpolicy.errors import InputError
from diffpolicy.evaluation.playing import Played, play, undisturbed
from diffpolicy.evaluation.results import Result
from diffpolicy.evaluation.tables import cost_cells, cost_columns
from diffpolicy.policies.protocols import Decides

BATCH = 16
"""Episodes that are played side by side."""
UNLIKE = "episodes, which may differ from policy to policy, since they cannot be repeated"
"""What is played where a seed gives something else each time."""


@runtime_checkable
class PlaysEpisodes(Protocol):
    """A problem that plays episodes by a simulator of its own, where that is not one decision a step."""

    def play(
        self, policy: Any, episodes: int, seed: int, heard: Callable[[float], None] | None = None
    ) -> Played | None:
        """As `play_episodes`; None: the environment plays them."""


@contextmanager
def naming(policy: str) -> Iterator[None]:
    """Puts a policy's name before whatever is found wrong with it."""
    try:
        yield
    except InputError as error:
        message = str(error)
        raise InputError(message if policy in message else f"policy {policy}: {message}") from None


@dataclass(frozen=True)
class Evaluation:
    """Policies on identical episodes of a problem.

    Args:
        problem: its name.
        cost: what is small where a policy is good.
        results: by the policies' names.
        episodes, seed, baseline: as they were asked for.
        told: what the problem says of the episodes, such as their load.
        noun: what files call the problem.
        alike: what was played, in the table's title.
        rules: names of the problem's.
        played: what the policies' and the baseline's episodes cost, item by item.

    Example:
        >>> problem = EnvProblem(Clinic, steps=50, rules={"longest": longest_queue}, cost="waiting")
        >>> evaluation = evaluate(problem, ["random"], episodes=4)
        >>> evaluation.baseline, evaluation.results["random"].costs.count
        ('longest', 4)
        >>> list(evaluation.to_dict())
        ['problem', 'cost', 'policies', 'version', 'seed']
    """

    problem: str
    cost: Cost
    results: Mapping[str, Result]
    episodes: int
    seed: int
    baseline: str
    told: Mapping[str, float] = field(default_factory=dict)
    noun: str = "problem"
    alike: str = Problem.alike
    rules: Sequence[str] = ()
    played: Mapping[str, Played] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """As `evaluate --json` prints it; `repeatable` is there, and false, where the episodes were not the same."""
        policies = {name: result.to_dict(self.cost) for name, result in self.results.items()}
        cost = {"cost": self.cost.titled("").strip()} if self.noun == "problem" else {}
        return {
            self.noun: self.problem,
            **cost,
            **self.told,
            **repeatable(self.alike),
            "policies": policies,
            "version": __version__,
            "seed": self.seed,
        }

    def table(self, marks: Mapping[str, str] | None = None) -> str:
        """As `evaluate` prints it. Args: marks: notes on policies, by name."""
        told = "".join(f", {name} {value:.2f}" for name, value in self.told.items())
        title = f"{self.problem}: {self.episodes} {self.alike}{told}, ratio to {self.baseline}"
        rows = [
            [name + (marks or {}).get(name, ""), *cost_cells(result, self.cost.unit)]
            for name, result in self.results.items()
        ]
        return render(title, ["policy", *cost_columns(self.cost)], rows)


def play_episodes(
    problem: Problem, policy: Decides, episodes: int, seed: int = 0, heard: Callable[[float], None] | None = None
) -> Played:
    """Plays the first episodes on which policies of a problem are judged, each in a lane of its own.

    Args:
        problem: what is decided.
        policy: a tensordict module, or a function of a tensordict.
        episodes: at least 1.
        seed: of the episodes, and of the global generators while a policy plays that draws from them.
        heard: is told of so many more episodes, in parts of one where their steps are known.

    Returns:
        What the episodes cost, by what the problem's `Cost` is `per`.

    Raises:
        InputError: `episodes` is out of range, the policy does not fit the problem, or a cost is not finite.

    Example:
        >>> problem = EnvProblem(Clinic, steps=50)
        >>> few, many = (play_episodes(problem, longest_queue, n).cost for n in (2, 5))
        >>> few.tolist() == many[:2].tolist()  # an episode does not depend on how many there are
        True
    """
    episodes = check.integer(episodes, "episodes", least=1, most=_limits.EVALUATION)
    seed = check.integer(seed, "seed", least=0)
    problem.check_episodes(episodes)
    check_is_policy(policy)
    parts = []
    with undisturbed(policy, seed):
        if isinstance(problem, PlaysEpisodes) and (whole := problem.play(policy, episodes, seed, heard)) is not None:
            return whole
        for first in range(0, episodes, BATCH):
            count = min(BATCH, episodes - first)
            env = problem.make_episodes(first, count, seed, view=problem.view(policy))
            ticks = None if heard is None else _Ticks(count, problem.steps, heard)
            problem.check(policy, env)
            played = play(
                env,
                policy,
                problem.steps,
                note_keys=problem.notes(env),
                per=problem.cost.per,
                first_episode=first,
                watch=ticks,
                # what offloading sends to a server that is down waits there: its masks are advice
                forbid=isinstance(problem, EnvProblem),
            )
            if ticks is not None:
                ticks.finish()
            parts.append(problem.counts(played))
    return Played.join(parts)


def played_as(problem: Problem, seed: int) -> str:
    """What an evaluation plays, in titles of tables. Args: problem: whose episodes. seed: of them."""
    return problem.alike if repeats(problem, seed) else UNLIKE


def repeatable(alike: str) -> dict[str, bool]:
    """What JSON says of episodes that were not the same; nothing of others. Args: alike: of `played_as`."""
    return {"repeatable": False} if alike == UNLIKE else {}


class _Ticks:
    """Tells of episodes that are played side by side, step by step.

    Args:
        count: of them. steps: of each; None: nobody knows, and they are told of when all are over. heard: is told.
    """

    def __init__(self, count: int, steps: int | None, heard: Callable[[float], None]) -> None:
        self.count, self.each, self.heard = count, 0.0 if steps is None else count / steps, heard
        self.told = 0.0

    def __call__(self, step: Any) -> None:
        if self.each:
            self.heard(self.each)
            self.told += self.each

    def finish(self) -> None:
        """Tells of what is left: lanes may all have ended early."""
        self.heard(self.count - self.told)


def evaluate(
    problem: Problem,
    policies: Mapping[str, Decides] | Sequence[str | Path],
    episodes: int = 16,
    seed: int = 0,
    baseline: str | None = None,
    heard: Callable[[str, float], None] | None = None,
) -> Evaluation:
    """Plays policies on identical episodes and compares them with a baseline.

    Args:
        problem: what is decided.
        policies: names that `make_policy` knows, run folders among them, or policies by name.
        episodes: of those on which policies are judged.
        seed: of these, and of the policies that are made here.
        baseline: a name; made and played if it is not among the policies; None: the problem's first rule.
        heard: is told a policy's name and how many of its episodes, or what part of one, was played since.

    Returns:
        A `Result` of each policy beside the baseline; `table()` shows them, `to_dict()` is what `--json` prints.

    Raises:
        InputError: there is no policy, one does not exist or does not fit, or `episodes` is out of range.

    Example:
        >>> problem = EnvProblem(Clinic, steps=50, cost="waiting")
        >>> result = evaluate(problem, {"longest": longest_queue}, episodes=8).results["longest"]
        >>> result.costs.count, result.ratio > 1  # dearer than random: the longest queue is not the dearest
        (8, True)
    """
    seed = check.integer(seed, "seed", least=0)
    if not isinstance(policies, Mapping):
        check.names(policies, "policies", "names")
        policies = {str(name): make_policy(name, problem, seed=seed) for name in policies}
    if not policies:
        raise InputError("policies must name at least one, got none")
    baseline = next(iter(rules_of(problem))) if baseline is None else baseline
    entrants = dict(policies)
    if baseline not in entrants:
        entrants[baseline] = make_policy(baseline, problem, seed=seed)
    alike, played = played_as(problem, seed), {}
    for name, policy in entrants.items():
        with naming(name):
            tell = None if heard is None else partial(heard, name)
            played[name] = play_episodes(problem, policy, episodes, seed, tell)
    base = played[baseline]
    return Evaluation(
        problem.name,
        problem.cost,
        {name: Result.of(played[name], base) for name in policies},
        episodes,
        seed,
        baseline,
        problem.summarise(base, episodes),
        problem.noun,
        alike,
        tuple(rules_of(problem)),
        played,
    )
