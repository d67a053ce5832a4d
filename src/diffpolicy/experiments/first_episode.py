"""What the first evaluation episode looks like: its steps, its timeline, and the chain of its first decision."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase

from diffpolicy._types import Floats
from diffpolicy.environments.problem import Problem
from diffpolicy.environments.schedule import Schedule
from diffpolicy.evaluation.playing import play, undisturbed
from diffpolicy.evaluation.tables import AXES, measure
from diffpolicy.networks.per_agent import Prepares
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.heads import CategoricalHead
from diffpolicy.policies.protocols import Decides
from diffpolicy.policies.recurrent import with_recurrent_state

SHOWN = 240
"""Items of a timeline: it has whole steps, the first ones, until that many items have come."""


def first_episode(
    problem: Problem, policies: Mapping[str, Decides], kinds: Mapping[str, str], baseline: str, seed: int
) -> dict[str, str]:
    """What is written of it, CSV texts by file name.

    `steps.csv`, `timeline.csv` where the problem has a schedule, and `chain.csv` where a policy denoises the logits
    of a choice.

    Args:
        problem: whose first episode is played. policies: by name. kinds: what each is of. baseline: of the evaluation.
        seed: of the episode.
    """
    seen = {name: Seen.of(problem, policy, seed) for name, policy in policies.items()}
    files = {
        "steps.csv": steps_csv(problem, seen, kinds, baseline),
        "timeline.csv": timeline_csv(problem, seen, kinds),
        "chain.csv": chain_csv(problem, policies, seed),
    }
    return {name: text for name, text in files.items() if text is not None}


@dataclass(frozen=True)
class Seen:
    """What is seen of an episode that a policy plays.

    Args:
        cost: of all items of each step. levels: how full everything is as each begins, none where nothing fills up.
        done: where and when the items of the first steps are done; empty where the problem has no schedule.
    """

    cost: list[float]
    levels: list[list[float]]
    done: list[Schedule]

    @classmethod
    def of(cls, problem: Problem, policy: Decides, seed: int) -> Seen:
        """Plays the first evaluation episode. Args: problem: whose. policy: any. seed: of the episode."""
        levels: list[list[float]] = []
        done: list[Schedule] = []
        env = problem.make_episodes(0, 1, seed, view=problem.view(policy))
        schedule = problem.schedule(env)

        def watch(step: TensorDictBase) -> None:
            level = problem.levels(step)
            levels.append([] if level is None else level[0].tolist())
            if schedule is not None and sum(len(x.place) for x in done) < SHOWN:
                done.append(schedule(step))

        with undisturbed(policy, seed):
            played = play(env, policy, problem.steps, per="step", watch=watch)
        return cls(played.cost.tolist(), levels, done)


def steps_csv(problem: Problem, seen: Mapping[str, Seen], kinds: Mapping[str, str], baseline: str) -> str:
    """A row a policy and step: what all items of the step cost, and the problem's `levels` as it begins."""
    width = max(len(level) for x in seen.values() for level in x.levels)
    header = ["policy", "kind", "step", problem.cost.column, *(f"{problem.level}:{k}" for k in range(width)), *AXES]
    end = [baseline, measure(problem.cost)]
    rows = [
        [name, kinds[name], k, cost, *level, *end]
        for name, x in seen.items()
        for k, (cost, level) in enumerate(zip(x.cost, x.levels, strict=False))
    ]
    return _text([header, *rows])


def timeline_csv(problem: Problem, seen: Mapping[str, Seen], kinds: Mapping[str, str]) -> str | None:
    """A row a policy and item of the first steps: where it is done, and when it arrives there, begins and ends."""
    rows = [
        [name, kinds[name], step, place, *(f"{x:.6g}" for x in times), problem.place, problem.clock]
        for name, x in seen.items()
        for step, done in enumerate(x.done)
        for place, *times in zip(done.place.tolist(), done.arrives, done.begins, done.ends, strict=True)
    ]
    header = ["policy", "kind", "step", "place", "arrives", "begins", "ends", "what", "clock"]
    return _text([header, *rows]) if rows else None


def _text(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def chain_csv(problem: Problem, policies: Mapping[str, Decides], seed: int) -> str | None:
    """A row a policy, step of its chain and choice: how probable the choice is in that state of the first decision.

    Returns:
        None where no policy denoises the logits of a choice.
    """
    rows: list[list[Any]] = []
    for name, policy in policies.items():
        if not (isinstance(policy, DiffusionPolicy) and isinstance(policy.head, CategoricalHead)):
            continue
        env = problem.make_episodes(0, 1, seed, view=problem.view(policy))
        with undisturbed(policy, seed), torch.no_grad():
            probabilities = chain_of(policy, with_recurrent_state(env, policy).reset())
        for step, row in zip((*policy.path, 0), probabilities, strict=True):
            rows += [[name, step, choice, float(p)] for choice, p in enumerate(row)]
    return _text([["policy", "chain_step", "choice", "probability"], *rows]) if rows else None


def chain_of(policy: DiffusionPolicy, td: TensorDictBase) -> Floats:
    """Probabilities of the choices in each state of a chain, x_I to x_0, of the first valid item, `[steps + 1, A]`.

    Args:
        policy: with a categorical head; its generator draws the noise. td: what it acts on.
    """
    rows = policy.rows(td)
    condition = policy.condition(policy.read_observation(td, rows))
    mask, noise = policy.read_mask(td, rows), policy.noise(condition.shape[:-1])
    latent = policy.read_latent(td, rows)
    if latent is None:
        assert noise is not None
        latent, noise = policy.process.terminal(noise[0]), noise[1:]
    cond = policy.denoiser.prepare(condition) if isinstance(policy.denoiser, Prepares) else condition
    states = policy.sampling.chain(policy.denoise, latent, cond, policy.process, noise).states
    law = torch.stack([policy.head.probabilities(policy.head.law(policy.decode(x), mask)) for x in states])
    items = torch.stack([rows.put(row) for row in law]).flatten(1, -2)
    first = int(items[-1].sum(-1).gt(0).nonzero()[0])
    return np.asarray(items[:, first].double().cpu().numpy())
