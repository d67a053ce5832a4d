"""What a policy carries from one step to the next: recurrent keys in TorchRL's sense, with any initial value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Composite
from torchrl.envs import EnvBase, TensorDictPrimer, TransformedEnv

from diffpolicy.errors import InputError
from diffpolicy.policies.protocols import Decides, Remembers, RemembersAlike, bare


class RecurrentState(TensorDictPrimer):
    """A primer whose initial values come from a function, and which may outlive an episode.

    The policy reads a key and writes `("next", key)`; this transform adds the key to the environment's specs, gives
    its value at a reset, and keeps it where an episode goes on.

    Args:
        spec: the keys and shapes of one environment, without its batch.
        initial: gives the values of E fresh environments: `initial(E) -> TensorDict` of batch `[E]`.
        forget: whether a reset brings the initial values back; otherwise only the first one does.

    Example:
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Composite, Unbounded
        >>> from torchrl.envs import TransformedEnv
        >>> ones = lambda e: TensorDict({"belief": torch.ones(e, 2)}, [e])
        >>> env = TransformedEnv(Clinic(3), RecurrentState(Composite(belief=Unbounded((2,))), ones))
        >>> env.reset()["belief"].sum().item()
        6.0
    """

    def __init__(self, spec: Composite, initial: Callable[[int], TensorDict], *, forget: bool = True) -> None:
        super().__init__(spec, expand_specs=True)
        self.initial, self.forget = initial, forget
        self.recurrent_keys = list(spec.keys(True, True))
        self.carried: dict[Any, Tensor] = {}
        self.written: dict[Any, Tensor] = {}
        """What a policy wrote for the step at hand."""

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        written, self.written = self.written, {}
        # what the primer does, which lists the keys of all that is there at every step
        for key in self.recurrent_keys:
            if next_tensordict.get(key, None) is None:
                next_tensordict.set(key, written[key] if key in written else tensordict.get(key))
        # a reset is not told what was there before it, so the last values are kept here
        self.carried = {key: next_tensordict.get(key) for key in self.recurrent_keys}
        return next_tensordict

    def _reset_func(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        e = self.parent.batch_size[0]
        reset = tensordict.get("_reset", None)
        fresh = self.initial(e).to(self.parent.device)
        for key in self.primers.keys(True, True):
            value, old = fresh.get(key), tensordict.get(key, self.carried.get(key))
            if old is not None:
                again = torch.ones(e, 1, dtype=torch.bool, device=value.device) if reset is None else reset
                if not self.forget:
                    again = torch.zeros_like(again)
                value = torch.where(again.view(-1, *[1] * (value.ndim - 1)), value, old)
            tensordict_reset.set(key, value)
        return tensordict_reset


class RecurrentEnv(TransformedEnv):
    """An environment with a `RecurrentState`, to which it hands what a policy wrote under `next`.

    TorchRL merges that into what a step gives by listing all keys of both, twice a step.

    Args:
        env: of batch `[E]`. state: gives the recurrent keys.
    """

    def __init__(self, env: EnvBase, state: RecurrentState) -> None:
        super().__init__(env, state, auto_unwrap=False)

    def step(self, tensordict: TensorDictBase) -> TensorDictBase:
        """As TorchRL's. Args: tensordict: with the action, and under `next` what a policy remembers."""
        state, written = self.transform, tensordict.get("next", None)
        if written is not None and isinstance(state, RecurrentState) and "_step" not in tensordict.keys():
            values = dict(written.items(True, True))
            if values.keys() == set(state.recurrent_keys):
                state.written = values
                del tensordict["next"]
        stepped: TensorDictBase = super().step(tensordict)
        return stepped


def carried(td: TensorDictBase, key: NestedKey) -> Tensor:
    """What a policy carries from step to step. Args: td: what it sees. key: under which it stands.

    Raises:
        InputError: it is not there, since the environment is not told to carry it.
    """
    value: Tensor | None = td.get(key, None)
    if value is None:
        raise InputError(
            f"the policy carries {key!r} from step to step, which it is not given; act in "
            "with_recurrent_state(env, policy)"
        )
    return value


def remembered_keys(env: EnvBase) -> set[Any]:
    """The recurrent keys that an environment shows since `with_recurrent_state` gave it them. Args: env: any."""
    found: set[Any] = set()
    while isinstance(env, TransformedEnv):
        if isinstance(env.transform, RecurrentState):
            found |= set(env.transform.recurrent_keys)
        env = env.base_env
    return found


def check_batch(env: EnvBase, who: str) -> None:
    """Raises InputError if an environment's batch is not `[E]`. Args: who: needs it."""
    if len(env.batch_size) != 1:
        raise InputError(
            f"{who} needs an environment of batch [E], got batch {list(env.batch_size)}; "
            "TorchRL's SerialEnv(E, make_env) makes one of E alike that have no batch"
        )


def with_recurrent_state(env: EnvBase, policy: Decides) -> EnvBase:
    """The environment with the recurrent keys of a policy, if it has any.

    Args:
        env: of batch `[E]`, if the policy has recurrent keys.
        policy: its `primer_for(env)`, or else TorchRL's `make_tensordict_primer()`, gives the transform.

    Returns:
        The environment itself where the policy carries nothing, else a `TransformedEnv` of it, a `RecurrentEnv` if it
        can be.

    Raises:
        InputError: the policy has some, and the environment has another batch, or shows one of them itself.

    Example:
        >>> env = Clinic(8)
        >>> policy = DiffusionPolicy.from_specs(env, prior=ActionMemory())
        >>> with_recurrent_state(env, policy).rollout(4, policy)["latent"].shape
        torch.Size([8, 4, 3])
        >>> with_recurrent_state(env, longest_queue) is env
        True
    """
    primer = policy.primer_for(env) if isinstance(policy, Remembers) else None
    if primer is None and isinstance(policy, RemembersAlike):
        primer = policy.make_tensordict_primer()
    if primer is not None:
        check_batch(env, "a policy with a memory")
    if isinstance(primer, RecurrentState):
        _check_apart(env, primer)
        return RecurrentEnv(env, primer)
    return env if primer is None else TransformedEnv(env, primer, auto_unwrap=False)


def _check_apart(env: EnvBase, state: RecurrentState) -> None:
    """Refuses an environment that shows a key that is remembered, as its values would stand where the memory is."""
    shown = bare(env).observation_spec.keys(True, True)  # its own ones: it may have the memory already
    for key in state.recurrent_keys:
        if key in shown:
            raise InputError(
                f"the policy remembers {key!r}, and the environment shows an observation of that key, which would "
                "stand where the memory is; give the observation another name"
            )
