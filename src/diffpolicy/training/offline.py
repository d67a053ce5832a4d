"""`OfflineModule`: updates on the rows of a data set, which nobody plays anew, as a LightningModule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict

from diffpolicy import _validate as check
from diffpolicy.environments.data_set import digest
from diffpolicy.errors import InputError
from diffpolicy.networks.normalizer import RunningNorm
from diffpolicy.objectives.rows import check_trainable
from diffpolicy.policies.draws import Draws
from diffpolicy.policies.policy import Policy
from diffpolicy.training.averaging import averaged
from diffpolicy.training.minibatches import minibatches
from diffpolicy.training.objective_module import ObjectiveModule
from diffpolicy.training.trainable import Numbers, part_content, policy_content

MANY = 10**9
"""Passes of a run without end."""


class OfflineModule(ObjectiveModule):
    """Training of a policy by any objective on given rows: one pass, which `fit` takes as an episode, visits all once.

    Offline learning (Levine et al. 2020, arXiv 2005.01643); imitation of rows is behaviour cloning. Rows come in random
    order, in minibatches of about equal size. A checkpoint does not hold them, only where their order is.

    Args:
        policy: what is trained.
        objective: a LossModule with `parameter_groups()` and `update_targets()`.
        rows: what it reads, batch `[M]`, or `[G, M]` for G agents; such as `environments.rows_of` makes of a file. A
            bool column valid tells which there are, where that are not all.
        learning_rates: by the names of the objective's groups.
        batch_size: rows of an update, for each agent.
        ema: decay of averaged weights, below 1, by which the policy then acts and is saved; None: there is one set.
        seed: of the order of rows.

    Raises:
        InputError: a number or a rate is out of range, there are no rows, or the objective cannot read them.

    Example:
        >>> from tensordict import TensorDict
        >>> policy = FeedforwardPolicy.from_specs(Clinic(1, masked=False))
        >>> seen = torch.rand(600, 3, generator=torch.Generator().manual_seed(0))
        >>> rows = TensorDict({"observation": seen, "action": seen.argmax(-1)}, [600])
        >>> module = OfflineModule(policy, LikelihoodLoss(policy), rows, learning_rates={"actor": 0.01}, batch_size=64)
        >>> history = fit(module, episodes=10).history
        >>> history[-1]["loss_actor"] < 0.7 * history[0]["loss_actor"]
        True
    """

    def __init__(
        self,
        policy: Policy,
        objective: Any,
        rows: TensorDict,
        *,
        learning_rates: Mapping[str, float],
        batch_size: int = 256,
        ema: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(policy, objective, learning_rates=learning_rates)
        self.batch_size = check.integer(batch_size, "batch_size", least=1)
        if not rows.batch_size.numel():  # of a TensorDict without rows numel says 1
            raise InputError("there are no rows to learn from")
        valid = rows.get("valid", None)
        if valid is not None and (valid.dtype != torch.bool or not bool(valid.any(-1).all())):
            raise InputError("valid must be bool, and true for a row of each agent")
        check_trainable(objective, rows)
        self.averaged = None if ema is None else averaged(policy, ema)
        if self.averaged is not None:
            self.__dict__["policy"] = self.averaged.module
        self.__dict__.update(learner=policy, rows=rows)
        self.ema, self.pass_items = ema, 1
        self.generator = Draws(seed)
        if policy.normalizer is not None:  # what is given is seen at once
            seen = rows["observation"]
            seen = (seen[rows["valid"]] if "valid" in rows.keys() else seen.flatten(0, -2)).to(policy.device)
            policy.normalizer.update(RunningNorm.moments(seen).to(policy.normalizer.mean))

    def content(self) -> dict[str, Any]:
        return {
            "module": type(self),
            "policy": policy_content(self.policy),
            "objective": part_content(self.objective),
            "learning_rates": self.learning_rates,
            "batch_size": self.batch_size,
            "seed": self.generator.initial_seed(),
            "data": digest(self.__dict__["rows"]),
            **({} if self.ema is None else {"ema": self.ema}),
        }

    def train_dataloader(self) -> Numbers:
        return Numbers(self, MANY)

    def training_step(self, number: int, batch_idx: int) -> None:
        rows, optimizer = self.__dict__["rows"], self.optimizers()
        valid = rows.get("valid", None)
        there = torch.ones(rows.batch_size, dtype=torch.bool) if valid is None else valid
        for index in minibatches(there, self.batch_size, self.generator):
            batch = rows[index].to(self.learner.device)
            losses = self.objective(batch)
            optimizer.zero_grad(set_to_none=True)  # type: ignore[union-attr]
            self.total(batch, losses).backward()
            # Lightning counts a step of its own wrapper; the others go to the optimiser itself, which is cheaper
            (optimizer.optimizer if self._updates else optimizer).step()  # type: ignore[union-attr]
            if self.averaged is not None:
                self.averaged.update_parameters(self.learner)
            self.objective.update_targets()
            self.count(losses)
        self.episodes += 1
        means = {key: float(value) / self._updates for key, value in self._sums.items()}
        self._sums, self._updates = {}, 0
        self.history.append({"episode": self.episodes, **means})

    @property
    def learner(self) -> Policy:
        """Whose parameters move."""
        learner: Policy = self.__dict__["learner"]
        return learner

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["offline"] = {
            "generator": self.generator.get_state(),
            "policy": self.learner.get_extra_state(),
            "history": self.history,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["offline"]
        self.generator.set_state(state["generator"])
        self.learner.set_extra_state(state["policy"])
        self.history = list(state["history"])
        self.episodes = len(self.history)
