"""What the first evaluation episode looks like step by step, and the chain of its first decision, as files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase

from diffpolicy._types import Floats
from diffpolicy.environments.problem import Problem
from diffpolicy.evaluation.playing import play, undisturbed
from diffpolicy.evaluation.tables import AXES, measure
from diffpolicy.networks.per_agent import Prepares
from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.policies.heads import CategoricalHead
from diffpolicy.policies.recurrent import with_recurrent_state


def first_episode(
    problem: Problem, policies: Mapping[str, Any], kinds: Mapping[str, str], baseline: str, seed: int
) -> dict[str, str]:
    """`steps.csv`, and `chain.csv` where a policy denoises the logits of a choice, CSV texts by file name.

    Args:
        problem, policies, kinds, baseline, seed: of `steps_csv`.
    """
    chain = chain_csv(problem, policies, seed)
    files = {"steps.csv": steps_csv(problem, policies, kinds, baseline, seed)}
    return files if chain is None else {**files, "chain.csv": chain}


def steps_csv(problem: Problem, policies: Mapping[str, Any], kinds: Mapping[str, str], baseline: str, seed: int) -> str:
    """A row a policy and step: what all items of the step cost, and the problem's `levels` as it begins.

    Args:
        problem: whose first episode is played. policies: by name. kinds: what each is of. baseline: of the evaluation.
        seed: of the episode.
    """
    rows = []
    width = 0
    for name, policy in policies.items():
        levels: list[list[float]] = []

        def watch(step: TensorDictBase, levels: list[list[float]] = levels) -> None:
            level = problem.levels(step)
            levels.append([] if level is None else level[0].tolist())

        env = problem.make_episodes(0, 1, seed, view=problem.view(policy))
        with undisturbed(policy, seed):
            played = play(env, policy, problem.steps, per="step", watch=watch)
        width = max(width, *map(len, levels))
        rows += [
            [name, kinds[name], k, cost, *level, baseline, measure(problem.cost)]
            for k, (cost, level) in enumerate(zip(played.cost, levels, strict=False))
        ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{problem.level}:{k}" for k in range(width)]
    writer.writerow(["policy", "kind", "step", problem.cost.column, *columns, *AXES])
    writer.writerows(rows)
    return text.getvalue()


def chain_csv(problem: Problem, policies: Mapping[str, Any], seed: int) -> str | None:
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
    if not rows:
        return None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([["policy", "chain_step", "choice", "probability"], *rows])
    return text.getvalue()


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
