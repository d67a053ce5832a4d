"""`PathwiseModule`: training through a differentiable episode, as a LightningModule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from diffpolicy import _validate as check
from diffpolicy.environments.checks import check_policy
from diffpolicy.environments.state import saves_state
from diffpolicy.errors import InputError
from diffpolicy.networks.normalizer import RunningNorm
from diffpolicy.objectives.pathwise import PathwiseLoss
from diffpolicy.policies.policy import Policy
from diffpolicy.policies.protocols import Reseedable, seed_of
from diffpolicy.training.played_module import PlayedModule
from diffpolicy.training.stream import pass_seed
from diffpolicy.training.trainable import check_rates, part_content

COST_WAS = {"delay_s": "cost"}
"""What a checkpoint of an earlier version calls the cost of an update, and what it is called."""


class PathwiseStream(IterableDataset[int]):
    """One update a pass: what it plays, the module plays itself, since a gradient must go through it.

    Args:
        env: what is played, batch `[E]`.
    """

    def __init__(self, env: Any) -> None:
        self.base_env = env

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[int]:
        yield 0


class PathwiseModule(PlayedModule):
    """Gradient descent on the cost of whole episodes; one training step plays E of them and is an epoch.

    For environments whose steps are differentiable in what the policy gives: the gradient of the cost goes through all
    of an episode (the pathwise derivative, Heess et al. 2015, arXiv 1510.09142; see `PathwiseLoss`).

    Args:
        policy: what acts.
        objective: the cost of what was played.
        rollout: `rollout(policy)` plays episodes, each from a reset, and gives a tensordict with its gradients; its
            `env` is batched `[E]`, as `FluidRollout` has it. If that cannot save its state, each pass begins with its
            `set_seed`. A policy that normalises needs `observation` and `valid` in what was played.
        learning_rates: by the name of the objective's group; for Adam. None: 0.01 for each.
        clip_norm: greatest norm of a gradient; long episodes make a few huge ones.
        anneal: updates over which the learning rates fall by a cosine to a twentieth; None: they stay.

    Raises:
        InputError: a number or a rate is out of range.

    Example:
        >>> class FirstChoice:  # an episode of one decision
        ...     env = Clinic(8)
        ...     def __call__(self, policy):
        ...         state = self.env.reset()
        ...         return state.set("chances", choice_probabilities(policy, state))
        >>> policy, price = FeedforwardPolicy.from_specs(FirstChoice.env), torch.tensor([1.0, 2.0, 4.0])
        >>> loss = PathwiseLoss(policy, lambda played: (played["chances"] @ price).mean())
        >>> run = fit(PathwiseModule(policy, loss, FirstChoice(), learning_rates={"actor": 0.1}), episodes=8 * 40)
        >>> round(loss(FirstChoice()(policy))["loss_pathwise"].item(), 1)
        1.0
    """

    policy: Policy
    stream: PathwiseStream

    def __init__(
        self,
        policy: Policy,
        objective: PathwiseLoss,
        rollout: Any,
        *,
        learning_rates: Mapping[str, float] | None = None,
        clip_norm: float = 1.0,
        anneal: int | None = None,
    ) -> None:
        super().__init__()
        groups = objective.parameter_groups()
        rates = dict(learning_rates) if learning_rates is not None else dict.fromkeys(groups, 0.01)
        check_rates(groups, rates)
        check.number(clip_norm, "clip_norm", above=0)
        if anneal is not None:
            anneal = check.integer(anneal, "anneal", least=1)
        # not submodules: the objective holds the policy's parameters, and they must not be saved twice
        self.__dict__.update(policy=policy, rollout=rollout, stream=PathwiseStream(rollout.env))
        self.automatic_optimization = False
        self.objective, self.learning_rates = objective, rates
        self.clip_norm, self.anneal = clip_norm, anneal
        self.episodes = 0
        self.history: list[dict[str, float]] = []

    def content(self) -> dict[str, Any]:
        return {
            **super().content(),
            "rollout": part_content(self.__dict__["rollout"]),
            "clip_norm": self.clip_norm,
            "anneal": self.anneal,
        }

    def check(self) -> None:
        super().check()
        check_policy(self.policy, self.stream.base_env)

    def check_saves(self) -> None:
        """Refuses an environment that neither saves its state nor can be seeded."""
        env = self.stream.base_env
        if not saves_state(env) and not isinstance(env, Reseedable):
            raise InputError(
                f"{type(env).__name__} has neither get_extra_state and set_extra_state nor set_seed, so this run could "
                "not be resumed; give it one of them, or write no checkpoints"
            )

    def set_compiled(self, compiled: bool) -> None:
        """Refuses compilation: an episode is no graph of one shape."""
        if compiled:
            raise InputError("pathwise training cannot be compiled: an episode is no graph of one shape")

    def configure_optimizers(
        self,
    ) -> torch.optim.Optimizer | tuple[list[torch.optim.Optimizer], list[torch.optim.lr_scheduler.LRScheduler]]:
        groups = self.objective.parameter_groups()
        optimizer = torch.optim.Adam(
            [{"params": list(params), "lr": self.learning_rates[name]} for name, params in groups.items()]
        )
        if self.anneal is None:
            return optimizer
        total = self.anneal

        def factor(step: int) -> float:
            return 0.05 + 0.95 * (1 + math.cos(math.pi * min(step / total, 1))) / 2

        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, factor)]

    def train_dataloader(self) -> PathwiseStream:
        return self.stream

    def on_train_start(self) -> None:
        self.objective.train()

    def training_step(self, batch: int, batch_idx: int) -> None:
        if not saves_state(self.stream.base_env):
            self.stream.base_env.set_seed(pass_seed(seed_of(self.policy), self.current_epoch))
        played = self.__dict__["rollout"](self.policy)
        if self.policy.normalizer is not None and not {"observation", "valid"} <= set(played.keys()):
            raise InputError(
                "the rollout must give 'observation' and 'valid', of which the policy's normaliser learns, and gives "
                f"{', '.join(sorted(map(str, played.keys())))}"
            )
        losses = self.objective(played)
        total = sum(value for key, value in losses.items() if key.startswith("loss"))
        if not torch.isfinite(total):
            raise FloatingPointError(f"training stopped in update {self.current_epoch + 1}: the cost is {total.item()}")
        optimizer: Any = self.optimizers()
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(total)
        norm = self._clip()
        optimizer.step()
        if self.anneal is not None:
            self.lr_schedulers().step()  # type: ignore[union-attr]
        if self.policy.normalizer is not None:
            seen = played["observation"][played["valid"]]
            self.policy.normalizer.update(RunningNorm.moments(seen).to(self.policy.normalizer.mean))
        self.episodes += self.stream.base_env.batch_size.numel()
        row = {"cost": float(total.detach()), "gradient_norm": float(norm)}
        told = {"episodes": float(self.episodes), **row}
        self.log_dict(told, on_step=True, on_epoch=False, logger=False, batch_size=1)
        self.history.append({"episode": self.episodes, **row})

    def _clip(self) -> Tensor:
        """Scales the gradient down to the greatest norm; its norm before that."""
        norm = torch.nn.utils.clip_grad_norm_(list(self.objective.parameters()), self.clip_norm)
        if not torch.isfinite(norm):
            bad = next(
                name
                for name, value in self.objective.named_parameters()
                if value.grad is not None and not torch.isfinite(value.grad).all()
            )
            raise FloatingPointError(
                f"training stopped in update {self.current_epoch + 1}: the gradient of {bad} is not finite"
            )
        return norm

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["diffpolicy"] = {
            "env": self.stream.base_env.get_extra_state() if saves_state(self.stream.base_env) else None,
            "episodes": self.episodes,
            "history": self.history,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["diffpolicy"]
        if saves_state(self.stream.base_env):
            self.stream.base_env.set_extra_state(state["env"])
        self.episodes = state["episodes"]
        self.history = [{COST_WAS.get(key, key): value for key, value in row.items()} for row in state["history"]]
