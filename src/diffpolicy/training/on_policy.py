"""`OnPolicyModule`: passes with recorded draws, then a few epochs of minibatches on them, then new passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy.environments.tally import Tally
from diffpolicy.errors import InputError
from diffpolicy.objectives.protocols import BeginsUpdates, ReadsDraws
from diffpolicy.objectives.rows import wide
from diffpolicy.policies.draws import Draws
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.specs import keys_of
from diffpolicy.training.advantages import Advantages, normalized
from diffpolicy.training.minibatches import minibatches
from diffpolicy.training.rollouts import RolloutModule, Transitions
from diffpolicy.training.stream import RolloutStream, counted_parts, whole

LEFT_BEHIND = 100
"""Times `collect` that one agent may have decided while another has not decided at all."""


class OnPolicyModule(RolloutModule):
    """On-policy training of any policy with a law (PPO, arXiv 1707.06347); see `ChainPPOLoss` for what its ratios are.

    The policy plays passes and records the draws of its chains and the log-probability of its actions (`record`). Once
    every agent has `collect` transitions, their generalised advantages are taken, `epochs` times all of them go
    through the objective in minibatches, and they are forgotten. Items of one step are decided at once and have one
    advantage; where the problem's transitions go from item to item (`sequential`), each has its own.

    Args:
        policy: what acts; its law is known (`check_law`), and its head draws.
        objective: a LossModule with `parameter_groups()`, `values(observation)` and `check_rows(transitions)`, which
            reads rows with `advantage` and `value_target`, both `[.., M, 1]`.
        stream: plays; its items are rollouts of the policy.
        transitions: makes transitions of a rollout, such as `step_transitions`: in time order,
            `[E, agents, T, items]`, with what acting recorded.
        tally: adds up what passes cost, a column of the history; None: minus the rewards of an episode.
        learning_rates: by the names of the objective's groups.
        gamma: discount.
        lmbda: of the generalised advantage (arXiv 1506.02438), from 0 to 1.
        sequential: whether an item's successor in the transitions is the agent's next item.
        collect: transitions of each agent before an update.
        epochs: of an update.
        batch_size: rows of a minibatch, for each agent.
        clip_norm: greatest norm of a gradient.
        target_kl: an update ends after the epoch in which the objective's `kl_approx` is above this; None: it does not.
        normalize_advantages: whether each agent's have mean 0 and deviation 1 in an update.
        reward_scale: factor on rewards; `auto`: one over the deviation of the first update's returns.
        seed: of the minibatches.

    Raises:
        InputError: an argument is out of range; while playing: the transitions lack what acting recorded.

    Example:
        >>> from diffpolicy.policies.keys import Keys
        >>> env, rates = Clinic(8), {"actor": 1e-3, "critic": 1e-3}
        >>> policy, keys = FeedforwardPolicy.from_specs(env, head="sample"), Keys.of(env)
        >>> loss = ChainPPOLoss(policy, CriticEnsemble(3, 1, ensemble=1))
        >>> stream = RolloutStream(env, policy, episode_steps=50, steps=10)
        >>> rows = lambda rollout: step_transitions(rollout, keys)
        >>> module = OnPolicyModule(policy, loss, stream, rows, learning_rates=rates, collect=400)
        >>> fit(module, episodes=8).episodes
        8
    """

    def __init__(
        self,
        policy: Policy,
        objective: Any,
        stream: RolloutStream,
        transitions: Transitions,
        *,
        tally: Tally | None = None,
        learning_rates: Mapping[str, float],
        gamma: float = 0.99,
        lmbda: float = 0.95,
        sequential: bool = False,
        collect: int = 1024,
        epochs: int = 10,
        batch_size: int = 256,
        clip_norm: float = 0.5,
        target_kl: float | None = None,
        normalize_advantages: bool = True,
        reward_scale: float | Literal["auto"] = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(policy, objective, stream, transitions, tally=tally, learning_rates=learning_rates)
        self.gamma = check.number(gamma, "gamma", least=0, most=1)
        self.lmbda = check.number(lmbda, "lmbda", least=0, most=1)
        self.collect = check.integer(collect, "collect", least=1)
        self.epochs = check.integer(epochs, "epochs", least=1)
        self.batch_size = check.integer(batch_size, "batch_size", least=1)
        self.clip_norm = check.number(clip_norm, "clip_norm", above=0)
        self.target_kl = None if target_kl is None else check.number(target_kl, "target_kl", above=0)
        self.normalize_advantages = check.flag(normalize_advantages, "normalize_advantages")
        self.reward_scale = (
            reward_scale if reward_scale == "auto" else check.number(reward_scale, "reward_scale", above=0)
        )
        self.sequential = check.flag(sequential, "sequential")
        keys = keys_of(policy, stream.base_env)
        self.advantages = Advantages.of(keys, stream.base_env, self.gamma, self.lmbda, sequential=self.sequential)
        self.scale = None if reward_scale == "auto" else float(reward_scale)
        self.generator = Draws(seed)
        self.playing: list[TensorDictBase] = []
        """What the present pass has played."""
        self.pending: list[TensorDict] = []
        """Transitions of passes that await an update."""

    def content(self) -> dict[str, Any]:
        own = ("gamma", "lmbda", "sequential", "collect", "epochs", "batch_size", "clip_norm", "target_kl")
        return {
            **super().content(),
            **{name: getattr(self, name) for name in (*own, "normalize_advantages", "reward_scale")},
            "seed": self.generator.initial_seed(),
        }

    def on_train_start(self) -> None:
        super().on_train_start()
        # who begins updates asks the parameters of before them itself
        begins = isinstance(self.objective, BeginsUpdates)
        self.policy.record = "draws" if isinstance(self.objective, ReadsDraws) else not begins

    def on_train_end(self) -> None:
        self.policy.record = False

    def training_step(self, rollout: TensorDict, batch_idx: int) -> None:
        self.tally.add(rollout)
        self.playing.append(rollout)
        if self.stream.played:
            return
        self.pending += [self._checked(self.transitions(part)) for part in counted_parts(whole(self.playing))]
        self.playing = []
        if self._enough():
            self._learn()
        self._end_pass()

    def _checked(self, rows: Any) -> TensorDict:
        """What an update needs of transitions; refuses those on which the objective cannot be trained."""
        if not isinstance(rows, TensorDictBase):
            raise InputError(f"'transitions' must give a TensorDict, got {type(rows).__name__}")
        self.objective.check_rows(rows)
        if "valid" not in rows.keys():
            rows = rows.set("valid", torch.ones(rows.batch_size, dtype=torch.bool, device=rows.device))
        return rows.exclude(("next", "latent"), ("next", "action_mask"))

    def _enough(self) -> bool:
        """Whether every agent has `collect` transitions."""
        if not self.pending:
            return False
        counts = torch.cat([self._by_agent(rows["valid"]) for rows in self.pending], -1).sum(-1)
        if int(counts.max()) > LEFT_BEHIND * self.collect and not int(counts.min()):
            raise InputError(
                f"agent {int(counts.argmin())} has decided nothing while another decided {int(counts.max()):,} times, "
                "so it cannot learn alone; let agents share their parameters"
            )
        return int(counts.min()) >= self.collect

    def _learn(self) -> None:
        """An update on what is pending."""
        if self.scale is None:
            self.scale = self.advantages.fitting_scale(self.pending)
        rows, optimizer = self._rows(), self.optimizers()
        if isinstance(self.objective, BeginsUpdates):
            rows = self.objective.begin(rows)
        for _ in range(self.epochs):
            kl = [
                self.update(rows[index], optimizer)
                for index in minibatches(rows["valid"], self.batch_size, self.generator)
            ]
            if self.target_kl is not None and float(torch.stack(kl).mean()) > self.target_kl:
                break
        if self.policy.normalizer is not None:
            # after the update, within which the law that was recorded must stay what it was
            self._see(self.policy.normalizer, self.pending)
        self.pending = []

    def update(self, batch: TensorDict, optimizer: Any) -> Tensor:
        """One optimiser step on one minibatch; the objective's `kl_approx` before it."""
        losses = self.objective(batch)
        optimizer.zero_grad(set_to_none=True)
        self.total(batch, losses).backward()
        norm = torch.nn.utils.clip_grad_norm_(list(self.objective.parameters()), self.clip_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"training stopped in episode {self.episodes + 1}: a gradient is not finite")
        # Lightning counts a step of its own wrapper; the others go to the optimiser itself, which is cheaper
        (optimizer.optimizer if self._updates else optimizer).step()
        self.count(losses.set("gradient_norm", norm))
        kl: Tensor = losses["kl_approx"].detach()
        return kl

    def _rows(self) -> TensorDict:
        """All that is pending as rows with advantages and value targets, `[M]`, or `[G, M]` of G agents."""
        parts = []
        for rows in self.pending:
            value, after = (self._values(wide(td, "observation")) for td in (rows, rows["next"]))
            advantage, target = self.advantages(rows, value, after, self.scale or 1.0)
            kept = rows.exclude("next", "reward")
            parts.append(self._by_agent(kept.set("advantage", advantage).set("value_target", target)))
        result: TensorDict = torch.cat(parts, -1)
        if self.normalize_advantages:
            result["advantage"] = normalized(result["advantage"], result["valid"])
        for key in ("advantage", "value_target"):
            result[key] = result[key].unsqueeze(-1)
        return result

    def _values(self, observation: Tensor) -> Tensor:
        """The critic's values, of the observations' leading shape. Args: observation: `[E, agents, T, items, F]`."""
        lead = observation.shape[:-1]
        td = TensorDict({"observation": observation.to(self.policy.dtype)}, batch_size=lead)
        values: Tensor = self.objective.values(self._by_agent(td)["observation"])
        if self.policy.agents is None:
            return values.view(lead)
        return values.view(lead[1], lead[0], *lead[2:]).transpose(0, 1)

    def _by_agent(self, td: Any) -> Any:
        """Rows `[M]`, or `[G, M]` of G agents, of transitions or a tensor of their batch `[E, agents, T, items]`."""
        if self.policy.agents is None:
            return td.reshape(-1)
        return td.transpose(0, 1).reshape(td.shape[1], -1)

    def state_of_process(self) -> dict[str, Any]:
        own = {
            "pending": [rows.to_dict() for rows in self.pending],
            "scale": self.scale,
            "generator": self.generator.get_state(),
        }
        return {**super().state_of_process(), "on_policy": own}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        own = checkpoint["diffpolicy"]["processes"][0]["on_policy"]
        self.pending = [TensorDict.from_dict(rows, batch_size=rows["valid"].shape) for rows in own["pending"]]
        self.scale = own["scale"]
        self.generator.set_state(own["generator"])
