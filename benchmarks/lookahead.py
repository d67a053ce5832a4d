"""Policy iteration by looking ahead in the simulator, for `gang`: what each launch would come to, imitated by a chain.

Of each state that is met, launches are tried in copies of the environment, and from there on a base policy plays the
episode to its end (rollouts: Bertsekas and Castanon, Journal of Heuristics 5, 1999; with a classifier of what is best:
Lagoudakis and Parr, ICML 2003). All copies of a state meet the same arrivals. A network learns how much better each
launch is than the mean of those tried, over many states, so that none is preferred for what came by chance; and the
policy's chain imitates softmax(advantage / temperature). The base is a rule at first, and then the policy itself; the
simulator is used in training alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from diffpolicy.policies.diffusion import DiffusionPolicy
from diffpolicy.problems.gang import QUEUE, STEPS, GangEnv

LANES, TRIED = 24, 2
"""Episodes of a round; steps that are tried of each task that fits, drawn anew each time."""
LEAST = STEPS.index(6)
"""Fewer steps give no quality, and are not tried."""
TEMPERATURE = 0.5
"""Of the imitated softmax, in units of reward."""


def to_the_end(env: GangEnv, lane: Tensor, action: Tensor, base: Callable[[Any], Any]) -> Tensor:
    """What lanes earn from now on if they decide so first, and then as the base does, `[N]`.

    Args:
        env: stays as it is. lane: of it, `[N]`. action: of each, `[N, 2]`. base: decides what follows.
    """
    ahead = GangEnv([0] * len(lane), env.servers, env.rate_per_s)
    ahead.drawn, ahead.state, ahead.now = (x[lane].clone() for x in (env.drawn, env.state, env.now))
    total, over = ahead.act(action)
    while not over.all():
        td = base(TensorDict(ahead.show(), batch_size=[len(over)]))
        gain, ended = ahead.act(td["action"])
        total, over = total + gain.masked_fill(over, 0.0), over | ended
    return total


def tried(mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Launches of each task that fits, with different steps, and to wait: lanes `[N]` and actions `[N, 2]`.

    Args:
        mask: of the action, `[E, QUEUE + 1 + steps]`. generator: of the steps.
    """
    places = mask[:, : QUEUE + 1].clone()
    lane, place = places.nonzero(as_tuple=True)
    times = torch.where(place < QUEUE, TRIED, 1)
    lane, place = lane.repeat_interleave(times), place.repeat_interleave(times)
    steps = torch.randint(LEAST, len(STEPS) - 1, (len(lane),), generator=generator)
    return lane, torch.stack([place, steps], -1)


def advantages(value: Tensor, row: Tensor, rows: int) -> Tensor:
    """Values less the mean of their row, `[N]`. Args: value, row: `[N]`. rows: how many there are."""
    count = torch.zeros(rows).index_add_(0, row, torch.ones_like(value)).clamp_min(1)
    return value - (torch.zeros(rows).index_add_(0, row, value) / count)[row]


def train_ahead(problem: Any, seed: int, seconds: float, rule: Callable[[Any], Any]) -> tuple[DiffusionPolicy, int]:
    """A chain that decides gangs, and for how many episodes it was trained.

    Args:
        problem: `gang`. seed: of everything. seconds: that it may take. rule: the first base.
    """
    generator, start, episodes = torch.Generator().manual_seed(seed), time.monotonic(), 0
    env = problem.make_env(LANES, seed)
    policy = DiffusionPolicy.from_specs(
        env, steps=3, prediction="x0", sampler="ddim", denoiser={"hidden": [256, 256], "act": "mish"}, seed=seed
    )
    torch.manual_seed(seed)
    joint = policy.head.joint
    critic = nn.Sequential(
        nn.Linear(policy.observation_dim, 256), nn.Mish(), nn.Linear(256, 256), nn.Mish(), nn.Linear(256, joint)
    )
    both = torch.optim.Adam([*critic.parameters(), *policy.parameters()], lr=1e-3)
    seen: list[Tensor] = []
    masks: list[Tensor] = []
    labels: list[tuple[Tensor, Tensor, Tensor]] = []  # of a state's launches: its row, which, and what they come to

    def decide(td: Any) -> Any:
        with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
            return policy(td)

    def play(base: Callable[[Any], Any]) -> None:
        td, going = env.reset(), torch.ones(LANES, dtype=torch.bool)
        while going.any() and time.monotonic() - start < 0.9 * seconds:
            here = going.nonzero().squeeze(-1)
            place, action = tried(td["action_mask"][here], generator)
            value = to_the_end(env, here[place], action, base)
            first = sum(len(x) for x in seen)
            seen.append(td["observation"][here])
            masks.append(td["action_mask"][here])
            labels.append((place + first, policy.head.joint_index(action), value))
            # half of the lanes go as the base, the others by chance, so that other states are met
            with torch.no_grad():
                own, other = base(td.clone())["action"], policy(td.clone())["action"]
            td = env.step(td.set("action", torch.where((torch.arange(LANES) % 2 == 0).unsqueeze(-1), own, other)))[
                "next"
            ]
            going &= ~td["done"].squeeze(-1)

    def learn(updates: int) -> None:
        observation, mask = torch.cat(seen), torch.cat(masks)
        row, index, value = (torch.cat(part) for part in zip(*labels, strict=True))
        begins = torch.searchsorted(row, torch.arange(len(observation) + 1))
        for _ in range(updates):
            for group in both.param_groups:
                group["lr"] = 1e-3 * (1.05 - min(1.0, (time.monotonic() - start) / seconds))
            batch = torch.randint(len(observation), (256,), generator=generator)
            count = begins[batch + 1] - begins[batch]
            local = torch.arange(256).repeat_interleave(count)
            inside = torch.arange(len(local)) - (count.cumsum(0) - count).repeat_interleave(count)
            picked = begins[batch].repeat_interleave(count) + inside
            guess = critic(observation[batch])
            of_tried = advantages(guess[local, index[picked]], local, 256)
            loss = nn.functional.smooth_l1_loss(of_tried, advantages(value[picked], local, 256))
            td = TensorDict({"observation": observation[batch], "action_mask": mask[batch]}, batch_size=[256])
            law, allowed = policy.get_dist(td), policy.head.joint_mask(policy.head.read_mask(mask[batch]))
            aim = (guess.detach() / TEMPERATURE).masked_fill(~allowed, -1e9).softmax(-1)
            loss = loss - (aim * law.logits.clamp_min(-30)).sum(-1).mean()
            both.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([*critic.parameters(), *policy.parameters()], 5.0)
            both.step()
            if time.monotonic() - start > seconds:
                return

    while time.monotonic() - start < 0.8 * seconds:
        play(rule if time.monotonic() - start < 0.4 * seconds else decide)
        episodes += LANES
        learn(150)
    learn(10**6)
    return policy, episodes
