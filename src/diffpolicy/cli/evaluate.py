"""`diffpolicy evaluate`: policies on identical episodes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpolicy import _files
from diffpolicy._alone import alone_in
from diffpolicy.cli import options as opt
from diffpolicy.cli.progress import bar
from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from diffpolicy.environments import Problem
    from diffpolicy.evaluation import Evaluation

HELP = "evaluate policies on identical episodes"
EXAMPLES = (
    "diffpolicy evaluate opt-ts price pretrained:stale pretrained:live",
    "diffpolicy evaluate runs/lad-ts opt-ts --eval-episodes 32 --json",
    "diffpolicy evaluate runs/mine random --problem mine:problem",
    "diffpolicy evaluate runs/qvpo random --problem gym:Pendulum-v1 --guidance best-of:16",
    "diffpolicy evaluate opt-ts --scenario gpu-mix --binding free --order cost-minus-age:age=0.5",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("policies", nargs="+", metavar="POLICY", help="policies to play, one or more")
    opt.add_problem(parser)
    opt.add_eval_episodes(parser, 16)
    parser.add_argument("--episodes", action=opt.OldSpelling, instead="--eval-episodes", **opt.EVAL_EPISODES)
    parser.add_argument(
        "--baseline",
        metavar="POLICY",
        help="policy that ratios refer to (default: the problem's first rule; for offloading opt-ts)",
    )
    parser.add_argument(
        "--log",
        metavar="FILE",
        help="play nothing: estimate from logged decisions what the policies would have earned; a CSV or folder "
        "that says how probable each decision was",
    )
    opt.add_sampler(parser)
    opt.add_guidance(parser)
    parser.add_argument("--out", metavar="DIR", help="folder for tables and pictures")
    opt.add_scenario(parser)
    opt.add_binding(parser)
    opt.add_common(parser)


def run(options: argparse.Namespace) -> None:
    """Checks what can be checked without torch, then plays."""
    names = list(options.policies)
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"policy {name} is named twice")
    scenario = opt.checked_scenario(options)
    if scenario is not None:
        from diffpolicy.edge.resolve import check_policy

        for name in [*names, *([] if options.baseline is None else [options.baseline])]:
            with _other_problems(options):
                check_policy(name)
    held = opt.holding(options, scenario, [*names, options.baseline])
    out = None if options.out is None else _files.check_folder(options.out)

    from diffpolicy.edge.resolve import resample
    from diffpolicy.environments.entrants import rules_of
    from diffpolicy.evaluation import make_policy
    from diffpolicy.experiments import evaluate
    from diffpolicy.policies.protocols import Resampled
    from diffpolicy.policies.steered import steered

    opt.set_threads(options.threads)
    problem = opt.problem(options, scenario, held)
    policies = {
        name: resample(make_policy(name, problem, seed=options.seed), name, options.sampler, options.sampler_steps)
        for name in names
    }
    if options.guidance is not None:
        from diffpolicy.evaluation.evaluating import naming

        for name, policy in policies.items():
            with naming(name):
                policies[name] = steered(policy, *options.guidance)
    guided = _guided(options, policies)
    if options.log is not None:
        _estimate(options, policies, guided)
        return
    baseline = options.baseline or next(iter(rules_of(problem)))
    with alone_in(out):
        with (
            bar(options, "playing", len({*policies, baseline}) * options.eval_episodes) as progress,
            _other_problems(options),
        ):
            result = evaluate(
                problem,
                policies,
                options.eval_episodes,
                options.seed,
                baseline,
                lambda name, episodes: progress.advance(episodes, name),
            )
        told = result.to_dict()
        _add_guidance(told["policies"], guided)
        if held is not None:
            from diffpolicy.edge.dispatch.telling import add_held, held_line

            told = add_held(told, held, result.played)
        if out is not None:
            _files.write_text(out / "evaluation.json", json.dumps(told, allow_nan=False) + "\n")
            _write(out, result, problem, policies)
    if options.json:
        opt.print_json(told, options)
        return
    marks = {}
    if options.sampler or options.sampler_steps:
        marks = {
            name: f" [{policy.sampler}, {len(policy.path)} steps]"
            for name, policy in policies.items()
            if isinstance(policy, Resampled)
        }
    marks |= {name: f"{marks.get(name, '')} [guidance {how}]" for name, how in guided.items()}
    print(result.table(marks))
    if held is not None:
        print(held_line(held, result.played))


@contextmanager
def _other_problems(options: argparse.Namespace) -> Iterator[None]:
    """Reminds of `--problem` where a rule or a policy is not offloading's, which is what is played by default."""
    try:
        yield
    except InputError as error:
        message = str(error)
        foreign = "which the environment does not have" in message or "is neither a rule" in message
        if options.problem != "offloading" or not foreign or "did you mean" in message:
            raise
        raise InputError(f"{message}; offloading is the default problem, and --problem names another") from None


def _guided(options: argparse.Namespace, policies: Mapping[str, Any]) -> dict[str, str]:
    """How policies with a chain are guided otherwise, by their names.

    Raises:
        InputError: it was asked for, and no policy has a chain that could be guided.
    """
    if options.guidance is None:
        return {}
    from diffpolicy.policies.steered import SteeredPolicy

    kind, number = options.guidance
    how = kind if kind == "none" else f"{kind}:{number:g}"
    found = {name: how for name, policy in policies.items() if isinstance(policy, SteeredPolicy)}
    if not found:
        raise InputError(
            f"--guidance {how} steers chains of diffusion policies, and none of {', '.join(policies)} has one"
        )
    return found


def _add_guidance(told: dict[str, Any], guided: Mapping[str, str]) -> None:
    """Says of each policy how it was guided otherwise. Args: told: what is printed of each. guided: of `_guided`."""
    for name, how in guided.items():
        told[name]["guidance"] = how


def _estimate(options: argparse.Namespace, policies: Mapping[str, Any], guided: Mapping[str, str]) -> None:
    """Prints what policies would have earned, from a log. Args: guided: of `_guided`."""
    from diffpolicy._text_table import render
    from diffpolicy.environments.decision_log import read_decisions
    from diffpolicy.evaluation.evaluating import naming
    from diffpolicy.evaluation.off_policy import off_policy_value

    log, found = read_decisions(options.log), {}
    for name, policy in policies.items():
        with naming(name):
            found[name] = off_policy_value(policy, log, seed=options.seed)
        for sentence in found[name].warnings:
            print(f"diffpolicy: policy {name}: {sentence}", file=sys.stderr)
    if options.json:
        told = {n: v.to_dict() for n, v in found.items()}
        _add_guidance(told, guided)
        opt.print_json({"log": options.log, "policies": told}, options)
        return
    rows = [
        [
            name + (f" [guidance {guided[name]}]" if name in guided else ""),
            *(f"{x.mean:.3f} ± {x.half_width:.3f}" for x in (v.ips, v.snips, v.dr, v.logged)),
            f"{v.effective:.0f}",
        ]
        for name, v in found.items()
    ]
    columns = ["policy", "inverse propensity", "self-normalised", "doubly robust", "the log's own", "effective rows"]
    print(render(f"{options.log}: mean reward of a decision, {len(log)} rows", columns, rows))


def _write(out: Path, result: Evaluation, problem: Problem, policies: Mapping[str, Any]) -> None:
    """The tables, and a picture of each."""
    from diffpolicy.evaluation.evaluating import PlaysEpisodes
    from diffpolicy.evaluation.tables import evaluation_csv, kind_of
    from diffpolicy.experiments.breakdown import breakdowns
    from diffpolicy.experiments.first_episode import first_episode
    from diffpolicy.experiments.plots import draw

    kinds = {name: kind_of(name, trained=False, rules=result.rules) for name in result.played}
    tables = {"evaluation.csv": evaluation_csv(result), **breakdowns(problem, result.played, kinds, result.baseline)}
    if not isinstance(problem, PlaysEpisodes):  # which has no steps of an environment
        tables |= first_episode(problem, policies, kinds, result.baseline, result.seed)
    for file, text in tables.items():
        _files.write_text(out / file, text)
        draw(out / file)
