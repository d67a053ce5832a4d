"""`Policy`: keys, a head, and a law from what is observed: an action for each item of a tensordict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs import EnvBase
from typing_extensions import Unpack

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.policies.draws import without_chance
from diffpolicy.policies.finite import why_infinite
from diffpolicy.policies.fitting import check_networks
from diffpolicy.policies.heads import CompositeHead, Head
from diffpolicy.policies.law_policy import LawPolicy
from diffpolicy.policies.masks import readable
from diffpolicy.policies.options import ASKED, FreeOptions, check_options
from diffpolicy.policies.rows import Rows
from diffpolicy.policies.specs import check_specs, information_of, read_specs

Made = TypeVar("Made", bound="Policy")


class Policy(LawPolicy, base=True):
    """Decides an action for each item from what is observed of it; its head says what the networks' output means.

    A subclass gives `output`, and may override `embed`. Keys of a nested group (`("agents", "action")`) are of shape
    `[*batch, B, ...]`; then each of the B agents may have parameters of its own. `from_specs` reads all of its widths
    and keys off an environment.

    Args:
        choices: their number, A; of another head its width, the numbers in x_0.
        observation_dim: width of the observation keys together.
        head: what the networks' output means; by default logits of the choices.
        agents: B, each with parameters of its own, or None: all share one set.
        action_key: what is written.
        observation_keys: what is read.
        mask_key: which choices are allowed, bool or 0 and 1, `[*, A]`; None: all.
        valid_key: which items exist, bool of the action's shape without the dimensions of one item's action; None: all.
        observation_widths: of each observation key; needed if there are several and `embed` is overridden.
        observation_shapes: of one item's value of each key, which is flattened to its width; `[width]` by default.
        observation_values: n of each key that holds an integer below n, read as n features of which one is 1; or None.
        item_dims: how many dimensions of the action count items, after that which counts the agents; None:
            the tensordict's batch tells where the agents are.
        action_keys, mask_keys: where several actions are decided at once, those that are written and read; then
            `action_key` names all of them together, and their head is a `CompositeHead`.
        joint_items: shape of the items that are decided together, whose features `joint_row` puts side by side; their
            head is a `JointHead`.
        condition_dim: width of what `embed` gives, C; by default that of the observations.
        information: what kind of environment it reads (see `OffloadingEnv`).
        normalize: whether observations are normalised by their running statistics, which training keeps.
        seed: of the generator that draws initial parameters, noise and choices, from 0 to 2**64 - 1.

    Raises:
        InputError: a number is out of range, or a part does not fit the others.

    Example:
        >>> class Greatest(Policy):
        ...     def output(self, condition, latent=None, noise=None):
        ...         return condition  # as logits
        >>> policy = Greatest.from_specs(Clinic(1), head="argmax")
        >>> state = Clinic(2).reset().set("observation", torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]]))
        >>> policy(state)["action"]
        tensor([1, 0])
    """

    @classmethod
    def from_specs(
        cls: type[Made],
        env: EnvBase,
        *,
        action_key: NestedKey | list[NestedKey] | None = None,
        observation_keys: Sequence[NestedKey] | None = None,
        mask_key: NestedKey | str | None = "auto",
        share_parameters: bool = False,
        head: Head | Literal["sample", "argmax", "simplex"] | None = None,
        items: Literal["independent", "joint"] = "independent",
        **options: Unpack[FreeOptions],
    ) -> Made:
        """A policy whose widths and keys are read off an environment's specs.

        Args:
            env: its action is one key of categorical, one-hot, multi-categorical, multi-one-hot or bounded actions, or
                of vectors with a head that says what they are.
            action_key: by default the environment's only one, or a list of several of a group, by default all of its
                only group; they are decided at once.
            observation_keys: by default `observation` beside the action.
            mask_key: by default `action_mask` beside the action if there is one, of several keys their names with
                `_mask` at the end; None: masks are not read.
            share_parameters: one set of parameters for all agents of the action's group, instead of one each.
            head: what the networks' output means; `sample` or `argmax` says how the usual one for the kind of action
                draws, `simplex` that a vector is one of shares that sum to one.
            items: whether each item is decided alone, or all of a row (an environment's, or an agent's) together.
            options: of the class: prior, steps, schedule, sampler, denoiser, seed...

        Raises:
            InputError: a key is not in the specs, no head takes the action, or the class does not take an option.
        """
        return cls._from_specs(
            env,
            {
                "action_key": action_key,
                "observation_keys": observation_keys,
                "mask_key": mask_key,
                "share_parameters": share_parameters,
                "head": head,
                "items": items,
                **options,
            },
        )

    @classmethod
    def _from_specs(cls: type[Made], env: EnvBase, options: Mapping[str, Any]) -> Made:
        """What `from_specs` of a class makes. Args: options: its keyword arguments."""
        given = dict(options)
        asked = {name: given.pop(name) for name in ASKED if name in given}
        check.flag(asked.get("share_parameters", False), "share_parameters")
        read = {**read_specs(env, **asked), "information": information_of(env)}
        check_options(cls, given, read)
        return cls(**read, **given)

    # Acting

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Acts: writes the action, and what is remembered.

        All random numbers of a pass are drawn at once, the chain's before the choice's. Under TorchRL's
        `set_exploration_type` with another type than `RANDOM` none are: the chain starts from the mode of its start
        and spreads no noise, and the choice is the likeliest.
        """
        rows = self.rows(tensordict)
        condition, latent, mask, told = self._read(tensordict, rows)
        made = self.decided(condition, latent, mask, without_chance())
        x0, action = made.x0, made.action
        if readable(x0) and not math.isfinite(x0.sum().item()):
            self._refuse_output(tensordict, rows, x0)
        self.write_latent(tensordict, rows, x0)
        action = (action if told else self.head.refuse(action, mask)).to(tensordict[self.reading.keys[0]].device)
        action = self._put(rows, action)
        self.write_action(tensordict, action)
        return self._write_record(tensordict, rows, condition, mask, made, action) if self.record else tensordict

    def _put(self, rows: Rows, action: Tensor) -> Tensor:
        """Actions of rows where their items are, `[*, *event]`. Args: action: `[.., M, *event]`."""
        parts = len(self.head.event)
        action = rows.put(action.flatten(-parts)) if parts else rows.put(action.unsqueeze(-1)).squeeze(-1)
        return action.unflatten(-1, self.head.event) if parts > 1 else action

    def write_action(self, td: TensorDictBase, action: Tensor) -> None:
        """Writes what was decided, under each of the keys. Args: action: `[*, *event]`."""
        values = self.head.apart(action) if isinstance(self.head, CompositeHead) else (action,)
        for key, value in zip(self.action_keys, values, strict=True):
            td.set(key, value)

    def _refuse_output(self, td: TensorDictBase, rows: Rows, x0: Tensor) -> None:
        """Refuses what no choice can be read off, where one is awaited. Args: x0: `[.., M, A]`."""
        bad = ~torch.isfinite(rows.put(x0.detach())).all(-1) & self.reading.awaited(td, rows)
        if bad.any():
            raise InputError(f"the policy's output is not finite at {bad.nonzero()[0].tolist()}: {why_infinite(self)}")

    def check_env(self, env: EnvBase) -> None:
        """Raises InputError if the policy does not fit the environment's keys and shapes, or its own networks."""
        check_specs(self, env)
        check_networks(self)
