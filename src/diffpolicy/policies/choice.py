"""`ChoicePolicy`: what all learned policies over discrete choices share: keys, rows and drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torch.nn.functional import one_hot
from torchrl.envs import EnvBase
from typing_extensions import Unpack

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.networks.dense import width_of
from diffpolicy.networks.normalizer import RunningNorm
from diffpolicy.policies.draws import Draws, generator_on, without_chance
from diffpolicy.policies.evidence import check_evidence, evidence, is_all_ours
from diffpolicy.policies.fitting import check_networks
from diffpolicy.policies.heads import CategoricalHead, Head, head_from_dict
from diffpolicy.policies.keys import as_json as json_key
from diffpolicy.policies.keys import plain as plain_key
from diffpolicy.policies.law import HeadLaw, law_of_items, noise_of_items, recorded_noise
from diffpolicy.policies.masks import aligned_mask, readable
from diffpolicy.policies.options import ASKED, FreeOptions, check_options
from diffpolicy.policies.recurrent import RecurrentState
from diffpolicy.policies.registry import part_with
from diffpolicy.policies.rows import Rows, in_blocks
from diffpolicy.policies.saving import SavedPolicy
from diffpolicy.policies.specs import check_specs, information_of, read_specs

LARGEST = 10**6
"""Of any width: a larger one is a slip, and would only exhaust the memory."""
Policy = TypeVar("Policy", bound="ChoicePolicy")


class ChoicePolicy(SavedPolicy):
    """An action for each item, from what is observed of it; its head says what the networks' output means.

    A subclass gives `logits`, and may override `embed`. Keys of a nested group (`("agents", "action")`) are of shape
    `[*batch, B, ...]`; then each of the B agents may have parameters of its own.

    Args:
        choices: their number, A. observation_dim: width of the observation keys together.
        agents: B stacked sets of parameters, or None for one that all share.
        action_key, observation_keys, mask_key, valid_key: what is written and read; the mask tells allowed choices,
            bool `[*, A]`, valid which items exist, bool of the action's shape.
        observation_widths: of each observation key; needed if there are several and `embed` is overridden.
        observation_shapes: of one item's value of each key, which is flattened to its width; `[width]` by default.
        observation_values: n of each key that holds an integer below n, read as n features of which one is 1; or None.
        item_dims: how many dimensions of the action count items, after that which counts the agents of a stack; None:
            the tensordict's batch tells where the agents are.
        condition_dim: width of what `embed` gives, C; by default that of the observations.
        information: what kind of environment it reads (see `OffloadingEnv`).
        normalize: whether observations are normalised by their running statistics, which training keeps.
        seed: of the generator that draws initial parameters, noise and choices.
    """

    def __init__(
        self,
        *,
        choices: int,
        observation_dim: int,
        head: Head | None = None,
        agents: int | None = None,
        action_key: NestedKey = "action",
        observation_keys: Sequence[NestedKey] = ("observation",),
        observation_widths: Sequence[int] | None = None,
        observation_shapes: Sequence[Sequence[int] | None] | None = None,
        observation_values: Sequence[int | None] | None = None,
        condition_dim: int | None = None,
        mask_key: NestedKey | None = None,
        valid_key: NestedKey | None = None,
        item_dims: int | None = None,
        information: str = "paper",
        normalize: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in {"choices": choices, "observation_dim": observation_dim, "agents": agents or 1}.items():
            if check.integer(value, name, least=1) > LARGEST:
                raise InputError(f"{name} must be at most {LARGEST}, got {value}")
        check.integer(seed, "seed", least=0)
        check.flag(normalize, "normalize")
        self.item_dims = item_dims if item_dims is None else check.integer(item_dims, "item_dims", least=0)
        self.choices, self.observation_dim, self.agents = choices, observation_dim, agents
        self.head = CategoricalHead() if head is None else head
        widths = check.sequence(observation_widths or [observation_dim], "observation_widths")
        self.observation_widths = [width_of(w, f"observation_widths[{i}]") for i, w in enumerate(widths)]
        self.condition_dim = observation_dim if condition_dim is None else width_of(condition_dim, "condition_dim")
        if sum(self.observation_widths) != observation_dim:
            raise InputError(
                f"observation_widths {self.observation_widths} must sum to observation_dim {observation_dim}"
            )
        count = len(self.observation_widths)
        self.observation_shapes = [None if s is None else tuple(s) for s in observation_shapes or [None] * count]
        self.observation_values = list(observation_values or [None] * count)
        self.action_key = plain_key(action_key)
        self.observation_keys = [plain_key(k) for k in observation_keys]
        self.mask_key = None if mask_key is None else plain_key(mask_key)
        self.valid_key = None if valid_key is None else plain_key(valid_key)
        self.information, self.seed = information, seed
        self.trained: dict[str, Any] = {}
        self.generator = Draws(seed)
        self.normalizer = RunningNorm(observation_dim) if normalize else None
        self.in_keys = [*self.observation_keys, *(k for k in (self.mask_key, self.valid_key) if k is not None)]
        self.out_keys = [self.action_key]
        self._record = False

    @classmethod
    def from_specs(
        cls: type[Policy],
        env: EnvBase,
        *,
        action_key: NestedKey | None = None,
        observation_keys: Sequence[NestedKey] | None = None,
        mask_key: NestedKey | str | None = "auto",
        share_parameters: bool = False,
        head: Head | Literal["sample", "argmax"] | None = None,
        **options: Unpack[FreeOptions],
    ) -> Policy:
        """A policy whose widths and keys are read off an environment's specs.

        Args:
            env: its action is one key of categorical, one-hot, multi-categorical or bounded actions.
            action_key: by default the environment's only one.
            observation_keys: by default `observation` beside the action.
            mask_key: by default `action_mask` beside the action if there is one; None: masks are not read.
            share_parameters: one set of parameters for all agents of the action's group, instead of one each.
            head: what the networks' output means; a word says how the usual one for the kind of action draws.
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
                **options,
            },
        )

    @classmethod
    def _from_specs(cls: type[Policy], env: EnvBase, options: Mapping[str, Any]) -> Policy:
        """What `from_specs` of a class makes. Args: options: its keyword arguments."""
        given = dict(options)
        asked = {name: given.pop(name) for name in ASKED if name in given}
        check.flag(asked.get("share_parameters", False), "share_parameters")
        read = {**read_specs(env, **asked), "information": information_of(env)}
        check_options(cls, given, read)
        return cls(**read, **given)

    @property
    def head(self) -> Head:
        """What the networks' output means, in the size of their width."""
        return self._head

    @head.setter
    def head(self, head: Head) -> None:
        self._head = _of_width(head, self.choices)

    # What a subclass gives

    def embed(self, td: TensorDictBase) -> Tensor:
        """What is conditioned on, `[*, C]`: by default the observation keys, side by side.

        Acting and training both call it, on rows of any batch that hold the observation keys and nothing else. If C
        is not the observations' own width, tell the constructor: `condition_dim=C`.
        """
        return self.observe(td)

    def output(self, condition: Tensor, latent: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """What the networks make of rows, `[M, A]` or `[G, M, A]`: the end of the chain, or an MLP's outputs.

        Args:
            condition: what `embed` gave, `[.., M, C]`.
            latent: `[.., M, A]`, where one is read.
            noise: what `noise` drew, or None: it is drawn here.
        """
        raise NotImplementedError

    @property
    def draws(self) -> int:
        """Numbers of N(0, 1) that a choice takes for each of its logits."""
        return 0

    def noise(self, rows: torch.Size) -> Tensor | None:
        """What one pass over rows takes of N(0, 1), from the policy's own generator: `[draws, *rows, A]`, or None.

        Args:
            rows: `[M]`, or `[G, M]`.
        """
        if not self.draws:
            return None
        generator = generator_on(self.generator, self.device)
        return torch.randn((self.draws, *rows, self.choices), generator=generator, device=generator.device)

    def no_noise(self, rows: torch.Size) -> Tensor | None:
        """What stands for `noise` where an action without chance is asked for: its mode, zeros of the same shape."""
        return torch.zeros(self.draws, *rows, self.choices) if self.draws else None

    def decode(self, x0: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of rows from the networks' output.

        Args:
            x0: `[.., M, A]`.
            mask: allowed choices, bool `[.., M, A]`, or None.
        """
        return x0

    def choose(self, logits: Tensor) -> Tensor:
        """Actions of rows, `[*, *event]`. Args: logits: or other parameters of the head's law, `[*, A]`."""
        return self.head.sample(logits, self.head.draws(logits.shape[:-1], generator_on(self.generator, logits.device)))

    @property
    def draws_choice(self) -> bool:
        """Whether an action in `eval` mode is drawn, so that `choose_at` takes random numbers."""
        return self.head.draw_input is not None

    def choose_at(self, logits: Tensor, uniform: Tensor | None) -> Tensor:
        """What `choose` makes of rows in `eval` mode, as a pure function, `[*, *event]`.

        Args:
            logits: or other parameters of the head's law, `[*, A]`. uniform: what `head.draw_input` says, U[0, 1) of
                shape `[*]` for a categorical head; None where nothing is drawn.
        """
        return self.head.sample(logits, uniform)

    # How a step goes

    @property
    def remembers(self) -> bool:
        """Whether it reads a latent action that it remembers."""
        return False

    @property
    def device(self) -> torch.device:
        """Of the parameters."""
        return self._first_parameter().device

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self._first_parameter().dtype

    def _first_parameter(self) -> Tensor:
        """A parameter; where it stands is kept, since finding it costs as much as a small layer."""
        place = self.__dict__.get("_place")
        if place is None:
            held = ((m, name) for m in self.modules() for name, p in m._parameters.items() if p is not None)
            place = next(held)
            self.__dict__["_place"] = place
        module, name = place
        parameter: Tensor = module._parameters[name]
        return parameter

    def rows(self, td: TensorDictBase) -> Rows:
        """The valid items of a tensordict as rows."""
        first = self._observed(td, 0)
        valid = None if self.valid_key is None else td[self.valid_key]
        shape = first.shape[:-1] if valid is None else valid.shape
        return Rows(shape, self._agent_dim(td, shape), valid, first.device)

    def _agent_dim(self, td: TensorDictBase, shape: torch.Size) -> int | None:
        """Which dimension of the items counts the agents of a stack. Args: shape: of the items."""
        if self.agents is None:
            return None
        dim = td.batch_dims if self.item_dims is None else len(shape) - 1 - self.item_dims
        guessed = self.item_dims is None and not td.batch_dims and shape.count(self.agents) > 1
        if guessed or not 0 <= dim < len(shape) or shape[dim] != self.agents:
            raise InputError(
                f"the policy has networks for {self.agents} agents, and items of shape {list(shape)} in a tensordict "
                f"of batch {list(td.batch_size)} do not tell which dimension counts them"
            )
        return dim

    def observe(self, td: TensorDictBase) -> Tensor:
        """The observation keys, side by side, `[*, F]`."""
        parts = [self._observed(td, i) for i in range(len(self.observation_keys))]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def _observed(self, td: TensorDictBase, i: int) -> Tensor:
        """The i-th observation key, `[*, width]`; where an item has one number without a dimension of its own, of 1."""
        key, width, shape = self.observation_keys[i], self.observation_widths[i], self.observation_shapes[i]
        value: Tensor = td[key]
        count = self.observation_values[i]
        if count is not None:
            value = one_hot(value.long() if shape == () else value.long().squeeze(-1), count)
        elif shape is not None and len(shape) > 1 and value.shape[-len(shape) :] == shape:
            value = value.flatten(-len(shape))
        elif width == 1:
            valid = None if self.valid_key is None else td.get(self.valid_key, None)
            of = td.get(key[:-1]) if isinstance(key, tuple) else td
            value = value.unsqueeze(-1) if value.ndim == (of.batch_dims if valid is None else valid.ndim) else value
        if not value.ndim or value.shape[-1] != width:
            raise InputError(f"the observation {key!r} must have {width} features, got shape {list(value.shape)}")
        return value

    def read_observation(self, td: TensorDictBase, rows: Rows) -> Tensor:
        """What is observed of rows, in the networks' type and on their device, `[.., M, F]`.

        Raises:
            InputError: a number is not finite, seen on the CPU.
        """
        like = self._first_parameter()
        observation = rows.take(self.observe(td)).to(like.dtype)
        # a sum is ten times as fast as a look at each; where it overflows, each is looked at
        if readable(observation) and not math.isfinite(observation.sum().item()):
            self._refuse_infinite(td, rows)
        return observation.to(like.device)

    def _refuse_infinite(self, td: TensorDictBase, rows: Rows) -> None:
        """Names the first number of an item that exists which is not finite; others mean nothing."""
        for i, key in enumerate(self.observation_keys):
            value = self._observed(td, i)
            bad = ~torch.isfinite(value.to(self.dtype))
            if rows.valid is not None:
                bad = bad & rows.valid.unsqueeze(-1)
            if bad.any():
                at = bad.nonzero()[0].tolist()
                dtype = str(self.dtype).removeprefix("torch.")
                raise InputError(
                    f"the observation {key!r} holds {value[tuple(at)].item()} at {at}, not finite in {dtype}"
                )

    def normalized(self, observation: Tensor) -> Tensor:
        """Rows as networks read them, in their type. Args: observation: `[.., M, F]`, of any type of number."""
        observation = observation.to(self.dtype)
        return observation if self.normalizer is None else self.normalizer(observation)

    def condition(self, observation: Tensor) -> Tensor:
        """What `embed` makes of rows of observations. Args: observation: `[.., M, F]`."""
        observation = self.normalized(observation)
        if type(self).embed is ChoicePolicy.embed:
            return observation
        td = TensorDict(batch_size=observation.shape[:-1], device=observation.device)
        for key, part in zip(self.observation_keys, observation.split(self.observation_widths, -1), strict=True):
            td.set(key, part)
        return self.embed(td)

    def logits(
        self,
        observation: Tensor,
        latent: Tensor | None = None,
        mask: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """What `law` gives, by the name of its parameters under a categorical head.

        Args: observation, latent, mask, noise: of `law`.
        """
        return self.law(observation, latent, mask, noise)

    def law(
        self,
        observation: Tensor,
        latent: Tensor | None = None,
        mask: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Parameters of the law of rows' actions, `[M, A]` or `[G, M, A]`; logits of forbidden choices are at -1e9.

        Args:
            observation: `[.., M, F]`.
            latent: `[.., M, A]`, where one is read.
            mask: allowed choices, bool `[.., M, A]`, or None.
            noise: what `noise` drew, or None: it is drawn here.
        """
        return self.head.law(self.decode(self.output(self.condition(observation), latent, noise), mask), mask)

    def reseed(self, seed: int, stream: int = 0) -> None:
        """Begins a stream of a seed, so that copies of a policy, as a collector's workers have, draw apart.

        Args:
            seed: at least 0. stream: number of the copy. The parameters of a policy that is made with the seed are
                drawn from the beginning of stream 0, so it draws other numbers than one that begins it anew.
        """
        self.generator.reseed(seed, stream)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Acts: writes the action, and what is remembered.

        All random numbers of a pass are drawn at once, the chain's before the choice's. Under TorchRL's
        `set_exploration_type` with another type than `RANDOM` none are: the chain starts from the mode of its start
        and spreads no noise, and the choice is the likeliest.
        """
        rows = self.rows(tensordict)
        condition, latent, mask, told = self._read(tensordict, rows)
        still = without_chance()
        noise = self.no_noise(condition.shape[:-1]) if still else self.noise(condition.shape[:-1])
        x0 = in_blocks(self.output, condition, latent, None if noise is None else noise.to(condition))
        if readable(x0) and not math.isfinite(x0.sum().item()):
            self._refuse_output(tensordict, rows, x0)
        self.write_latent(tensordict, rows, x0)
        law = self.head.law(self.decode(x0, mask), mask)
        action = self.choose_at(law, None) if still else self.choose(law)
        action = (action if told else self.head.refuse(action, mask)).to(tensordict[self.observation_keys[0]].device)
        action = rows.put(action) if self.head.event else rows.put(action.unsqueeze(-1)).squeeze(-1)
        tensordict.set(self.action_key, action)
        return self._write_record(tensordict, rows, noise, law) if self.record else tensordict

    def _read(self, td: TensorDictBase, rows: Rows) -> tuple[Tensor, Tensor | None, Tensor | None, bool]:
        """Condition, latent and mask of rows where the networks are; whether rows that allow nothing were refused."""
        observation = self.read_observation(td, rows)
        latent, mask = self.read_latent(td, rows), self.read_mask(td, rows)
        told = mask is None or readable(mask)  # then `read_mask` has refused a row without an allowed choice
        latent, mask = (None if x is None else x.to(observation.device) for x in (latent, mask))
        return self.condition(observation), latent, mask, told

    # As TorchRL's losses ask for it

    @property
    def record(self) -> bool:
        """Whether acting also writes `draws` and `action_log_prob` beside the action, so that its law is known again.

        Ratios of policies (PPO) are then those of the state with the draws in it; noise that is drawn anew gives
        another law each time.
        """
        return self._record

    @record.setter
    def record(self, record: bool) -> None:
        if check.flag(record, "record"):
            self.check_law()
            if self.head.draw_input is None:
                raise InputError(
                    f"record needs a head that draws its action, and this {type(self.head).__name__} takes the argmax"
                )
        self._record = record
        extra = [*([self.beside("draws")] if self.draws else []), self.beside("action_log_prob")]
        kept = [key for key in self.out_keys if key not in extra]
        self.out_keys = [*kept, *extra] if record else kept

    def beside(self, name: str) -> NestedKey:
        """A key beside the action's. Args: name: its last part."""
        key = self.action_key
        return (*key[:-1], name) if isinstance(key, tuple) else name

    def check_law(self) -> None:
        """Raises InputError if its actions have no law that `get_dist` could give."""

    def get_dist(self, tensordict: TensorDictBase) -> HeadLaw:
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
        noise = self.noise(condition.shape[:-1]) if noise is None else noise
        x0 = self.output(condition, latent, None if noise is None else noise.to(condition))
        return law_of_items(self.head, rows, self.head.law(self.decode(x0, mask), mask), self.generator)

    def _write_record(self, td: TensorDictBase, rows: Rows, noise: Tensor | None, law: Tensor) -> TensorDictBase:
        """Writes what is recorded. Args: noise: `[draws, .., M, A]`. law: of rows."""
        if noise is not None:
            td.set(self.beside("draws"), noise_of_items(noise, rows))
        action = td[self.action_key]
        log_prob = law_of_items(self.head, rows, law, self.generator).log_prob(action.to(law.device))
        return td.set(self.beside("action_log_prob"), log_prob.detach().to(action.device))

    def _refuse_output(self, td: TensorDictBase, rows: Rows, x0: Tensor) -> None:
        """Refuses what no choice can be read off, where one is awaited. Args: x0: `[.., M, A]`."""
        bad = ~torch.isfinite(rows.put(x0.detach())).all(-1) & self._awaited(td, rows)
        if bad.any():
            wrong = [name for name, p in self.named_parameters() if not p.isfinite().all()]
            reason = f"its parameter {wrong[0]} is not finite" if wrong else "the observation is too large for it"
            raise InputError(f"the policy's output is not finite at {bad.nonzero()[0].tolist()}: {reason}")

    def read_mask(self, td: TensorDictBase, rows: Rows) -> Tensor | None:
        """Allowed choices of rows, bool `[.., M, A]`, or None.

        Raises:
            InputError: the mask is missing, of another shape, or allows an item nothing; where it is traced or on a
                GPU such an item's choice is -1.
        """
        if self.mask_key is None:
            return None
        mask = td.get(self.mask_key, None)
        if mask is None:
            raise InputError(f"the policy reads the mask {self.mask_key!r}, which it is not given")
        mask = self.head.read_mask(aligned_mask(mask, self.mask_key, rows.shape, self.head.mask_width))
        if readable(mask):
            some = self.head.allows(mask)
            if not some.all():
                none = ~some & self._awaited(td, rows)
                if none.any():
                    raise InputError(f"the mask {self.mask_key!r} allows no choice at {none.nonzero()[0].tolist()}")
        return rows.take(mask.expand(*rows.shape, self.choices))

    def _awaited(self, td: TensorDictBase, rows: Rows) -> Tensor:
        """Items that need a choice, bool `[*]`: those that exist, in environments that are not done."""
        valid = torch.ones(rows.shape, dtype=torch.bool, device="cpu") if rows.valid is None else rows.valid
        done = td.get("done", None)
        if done is None:
            return valid
        over: Tensor = done.reshape(*td.batch_size, -1).any(-1)
        return valid & ~over.view(*td.batch_size, *[1] * (valid.ndim - td.batch_dims))

    def read_latent(self, td: TensorDictBase, rows: Rows) -> Tensor | None:
        """The latent of rows, where the policy has one."""
        return None

    def write_latent(self, td: TensorDictBase, rows: Rows, x0: Tensor) -> None:
        """Remembers the end of the chain, where the policy has a memory."""

    def primer_for(self, env: EnvBase) -> RecurrentState | None:
        """What an environment needs to carry what the policy remembers; None, since it remembers nothing."""
        return None

    def check_env(self, env: EnvBase) -> None:
        """Raises InputError if the policy does not fit the environment's keys and shapes, or its own networks."""
        check_specs(self, env)
        check_networks(self)

    # How files describe it

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON holds them."""
        return {
            "choices": self.choices,
            "observation_dim": self.observation_dim,
            "agents": self.agents,
            "action_key": json_key(self.action_key),
            "observation_keys": [json_key(k) for k in self.observation_keys],
            "observation_widths": self.observation_widths,
            **self._observation_form(),
            "condition_dim": self.condition_dim,
            "mask_key": json_key(self.mask_key),
            "valid_key": json_key(self.valid_key),
            "item_dims": self.item_dims,
            "information": self.information,
            "normalize": self.normalizer is not None,
            "seed": self.seed,
        }

    def _observation_form(self) -> dict[str, Any]:
        """Shapes and values of observations, where they are not plain vectors."""
        form: dict[str, Any] = {}
        if any(s is not None and len(s) > 1 for s in self.observation_shapes) or any(self.observation_values):
            form["observation_shapes"] = [None if s is None else list(s) for s in self.observation_shapes]
        if any(self.observation_values):
            form["observation_values"] = self.observation_values
        return form

    def _evidence(self) -> dict[str, Any]:
        return {} if is_all_ours(self) else {"evidence": evidence(self)}

    def _check_evidence(self, description: dict[str, Any]) -> None:
        check_evidence(self, description.get("evidence"))

    @classmethod
    def _from_config(cls: type[Policy], config: dict[str, Any]) -> Policy:
        for name in ("action_key", "mask_key", "valid_key"):
            config[name] = plain_key(config[name])
        config["observation_keys"] = [plain_key(k) for k in config["observation_keys"]]
        if "head" in config:
            config["head"] = head_from_dict(config["head"])
        return super()._from_config(config)


def _of_width(head: Head, width: int) -> Head:
    """A head in its size. Args: width: of the networks' output.

    Raises:
        InputError: it is of another width.
    """
    if isinstance(head, CategoricalHead) and not head.choices:
        return part_with(head, choices=width)
    if head.width != width:
        raise InputError(f"a {type(head).__name__} of width {head.width} cannot read {width} outputs")
    return head
