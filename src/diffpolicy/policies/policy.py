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
from diffpolicy.policies.chain_law import ChainLaw
from diffpolicy.policies.decided import Decided
from diffpolicy.policies.draws import outside_graphs, without_chance
from diffpolicy.policies.finite import why_infinite
from diffpolicy.policies.fitting import check_networks
from diffpolicy.policies.heads import CompositeHead, Head
from diffpolicy.policies.law import HeadLaw, law_of_items, noise_of_items, recorded_noise
from diffpolicy.policies.masks import readable
from diffpolicy.policies.nested_keys import beside
from diffpolicy.policies.options import ASKED, FreeOptions, check_options
from diffpolicy.policies.row_policy import RowPolicy
from diffpolicy.policies.rows import Rows
from diffpolicy.policies.specs import check_specs, information_of, read_specs

Made = TypeVar("Made", bound="Policy")


class Policy(RowPolicy, base=True):
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
        mask_key: which choices are allowed, bool `[*, A]`; None: all.
        valid_key: which items exist, bool of the action's shape; None: all.
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
        seed: of the generator that draws initial parameters, noise and choices.

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

    _record: bool | Literal["draws"] = False

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

    # Reading

    def rows(self, td: TensorDictBase) -> Rows:
        """The valid items of a tensordict as rows."""
        return self.reading.rows(td)

    def read_observation(self, td: TensorDictBase, rows: Rows) -> Tensor:
        """What is observed of rows, in the networks' type and on their device, `[.., M, F]`."""
        return self.reading.features(td, rows, self._first_parameter())

    def read_mask(self, td: TensorDictBase, rows: Rows) -> Tensor | None:
        """Allowed choices of rows, bool `[.., M, A]`, or None; see `Reading.allowed`."""
        return self.reading.allowed(td, rows, self.head)

    def read_latent(self, td: TensorDictBase, rows: Rows) -> Tensor | None:
        """The latent of rows, where the policy has one."""
        return None

    def write_latent(self, td: TensorDictBase, rows: Rows, x0: Tensor) -> None:
        """Remembers the end of the chain, where the policy has a memory."""

    def _read(self, td: TensorDictBase, rows: Rows) -> tuple[Tensor, Tensor | None, Tensor | None, bool]:
        """Condition, latent and mask of rows where the networks are; whether rows that allow nothing were refused."""
        observation = self.read_observation(td, rows)
        latent, mask = self.read_latent(td, rows), self.read_mask(td, rows)
        told = mask is None or readable(mask)  # then `read_mask` has refused a row without an allowed choice
        latent, mask = (None if x is None else x.to(observation.device) for x in (latent, mask))
        return self.condition(observation), latent, mask, told

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

    # As TorchRL's losses ask for it

    @property
    def record(self) -> bool | Literal["draws"]:
        """Whether acting also writes `draws` and `action_log_prob` beside the action, so that its law is known again.

        Ratios of policies (PPO) are then those of the state with the draws in it; noise that is drawn anew gives
        another law each time. `"draws"` writes these alone, of which a chain whose end is the action can be had again.
        """
        return self._record

    @record.setter
    def record(self, record: bool | Literal["draws"]) -> None:
        if record == "draws":
            self.check_draws()
        elif check.flag(record, "record"):
            self.check_record()
        known = {key for kind in (True, "draws") for key in self.recorded_keys(kind)}
        self._record = record
        self.out_keys = [*(key for key in self.out_keys if key not in known), *self.recorded_keys(record)]

    def recorded_keys(self, record: bool | Literal["draws"]) -> list[NestedKey]:
        """Keys that a record writes beside the action. Args: record: of the property."""
        drawn = [self.beside("draws")] if self.draws and record else []
        return [*drawn, self.beside("action_log_prob")] if record is True else drawn

    @property
    def dist_sample_keys(self) -> list[NestedKey]:
        """Keys of the actions that `get_dist` gives the law of, by TorchRL's name, whose losses look for them."""
        return list(self.action_keys)

    @property
    def log_prob_keys(self) -> list[NestedKey]:
        """The key of their log-probability, likewise."""
        return [self.beside("action_log_prob")]

    def beside(self, name: str) -> NestedKey:
        """A key beside the action's. Args: name: its last part."""
        return beside(self.action_key, name)

    def check_draws(self) -> None:
        """Raises InputError if what it draws does not tell its action again."""

    def check_record(self) -> None:
        """Raises InputError if what acting wrote of an action would not tell how probable it was."""
        self.check_law()
        if self.head.draw_input is None:
            raise InputError(
                f"record needs a head that draws its action, and this {type(self.head).__name__} takes the argmax"
            )

    def check_law(self) -> None:
        """Raises InputError if its actions have no law that `get_dist` could give."""
        if self.head.x0_is == "action":
            raise InputError(
                f"the x_0 of a {type(self).__name__} with a {type(self.head).__name__} is the action itself, so it has "
                "no law apart from its chain's"
            )

    def get_dist(self, tensordict: TensorDictBase) -> HeadLaw | ChainLaw:
        """The law of the items' actions, `[*]`, given the chain's draws: those that were recorded, else fresh ones.

        It is what TorchRL's losses ask for, with `probs` and `logits` where choices are enumerated. It does not look at
        `set_exploration_type`, under which all these losses run.

        Args:
            tensordict: the policy's `in_keys`, and `draws` beside the action where acting recorded them (`record`).

        Raises:
            InputError: a key is missing or of another shape, or the policy has no law.

        Example:
            >>> policy.record = True
            >>> td = policy(env.reset())
            >>> ratio = (policy.get_dist(td).log_prob(td["action"]) - td["action_log_prob"]).exp()
        """
        self.check_law()
        rows = self.rows(tensordict)
        condition, latent, mask, _ = self._read(tensordict, rows)
        noise = recorded_noise(tensordict, self.beside("draws"), rows, self.draws, self.choices)
        noise = outside_graphs(self.noise, condition.shape[:-1]) if noise is None else noise
        x0 = self.end(condition, latent, None if noise is None else noise.to(condition), mask)
        several = self.action_keys if isinstance(self.head, CompositeHead) else ()
        return law_of_items(self.head, rows, self._law_of(x0, mask), self.generator, several)

    def _write_record(
        self,
        td: TensorDictBase,
        rows: Rows,
        condition: Tensor,
        mask: Tensor | None,
        made: Decided,
        action: Tensor,
    ) -> TensorDictBase:
        """Writes what is recorded. Args: condition, mask, made: of rows. action: `[*, *event]`."""
        if made.noise is not None:
            td.set(self.beside("draws"), noise_of_items(made.noise, rows))
        if self.record == "draws":
            return td
        log_prob = law_of_items(self.head, rows, made.law, self.generator).log_prob(action.to(made.law.device))
        return td.set(self.beside("action_log_prob"), log_prob.detach().to(action.device))

    def check_env(self, env: EnvBase) -> None:
        """Raises InputError if the policy does not fit the environment's keys and shapes, or its own networks."""
        check_specs(self, env)
        check_networks(self)
