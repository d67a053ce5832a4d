"""The action memory as recurrent state: what each environment remembers, and the latent that a step reads."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Composite, Unbounded

from diffpolicy.policies.draws import without_chance
from diffpolicy.policies.priors import ActionMemory
from diffpolicy.policies.recurrent import RecurrentState


class MemoryState(RecurrentState):
    """Gives the recurrent key of an `ActionMemory` its values, and keeps the steps of a `step-item` memory.

    With `item` the latent of a step is the whole memory, `[E, *group, N, A]`. With `step-item` there is one such
    tensor a slot; the bank of all of them stays in here, `[E, T, *group, N, A]`, and only the slot at hand is in the
    tensordict.

    Args:
        memory: the switches.
        key: the latent's key.
        shape: of one environment's latent, `[*group, N, A]`.
        group: how many of its dimensions belong to the key's own nested tensordict.
        generator: draws blank memories; they are the mode of their law where TorchRL's `set_exploration_type` asks for
            acting without chance.
        remembered: what every episode starts from, a copy of `[T, *group, N, A]` (T is 1 with `item`); None while
            training, where memories live as long as `memory.lifetime` says.
        forget: whether a reset brings back what an episode starts from; otherwise only the first one does.

    Example:
        >>> env = Clinic(8)
        >>> policy = DiffusionPolicy.from_specs(env, prior=ActionMemory(start="uniform"))
        >>> state = policy.primer_for(env)
        >>> isinstance(state, MemoryState), state.key, state.latent_shape
        (True, 'latent', torch.Size([3]))
    """

    def __init__(
        self,
        memory: ActionMemory,
        key: NestedKey,
        shape: torch.Size,
        group: int,
        generator: torch.Generator,
        *,
        remembered: Tensor | None = None,
        forget: bool = False,
    ) -> None:
        spec: Any = Unbounded(shape)
        for level, name in enumerate(reversed(key if isinstance(key, tuple) else (key,))):
            spec = Composite({name: spec}, shape=shape[:group] if level == 0 else ())
        super().__init__(spec, self._initial, forget=forget)
        self.memory, self.key, self.latent_shape, self.generator = memory, key, shape, generator
        self.remembered = remembered
        self.slots = memory.key == "step-item"
        self.bank: Tensor | None = None
        self._set_slot(None)

    def _set_slot(self, slot: Tensor | None) -> None:
        """Sets the steps of lanes, and the greatest of them as a number, which a step then need not ask a GPU for."""
        self.slot: Tensor | None = slot
        self._furthest = 0 if slot is None else int(slot.max())

    @property
    def _where(self) -> torch.device:
        """Of the environment, where the bank is too."""
        return self.parent.device or torch.device("cpu")

    def _blank(self, *lead: int) -> Tensor:
        blank = self.memory.blank((*lead, *self.latent_shape), None if without_chance() else self.generator)
        return blank.to(self._where)

    def _start(self, e: int) -> Tensor:
        """The bank at the start of an episode, `[E, T, *group, N, A]`."""
        if self.remembered is None:
            return self._blank(e, 1)
        start = self._blank(self.remembered.shape[0])
        known = tuple(slice(min(a, b)) for a, b in zip(start.shape, self.remembered.shape, strict=True))
        start[known] = self.remembered[known]
        return start.expand(e, *start.shape).clone()

    def _initial(self, e: int) -> TensorDict:
        if self.bank is None or self.forget:
            start = self._start(e)
            self.bank = start if self.slots else None
            latent = start[:, 0]
        else:
            latent = self.bank[:, 0]
        result = TensorDict(batch_size=[e])
        return result.set(self.key, latent.clone())

    def _reset_func(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        e = self.parent.batch_size[0]
        reset = tensordict.get("_reset", None)
        reset = torch.ones(e, dtype=torch.bool, device=self._where) if reset is None else reset.view(-1)
        old_bank, old_slot = self.bank, self.slot
        result = super()._reset_func(tensordict, tensordict_reset)
        if self.slots:
            if self.forget and old_bank is not None and not bool(reset.all()):
                assert self.bank is not None
                self.bank, old_bank = self._align(self.bank, old_bank)
                self.bank[~reset] = old_bank[~reset]
            fresh = torch.zeros(e, dtype=torch.long, device=self._where)
            self._set_slot(fresh if old_slot is None else old_slot.masked_fill(reset, 0))
            assert self.slot is not None
            assert self.bank is not None
            result.set(self.key, self.bank[torch.arange(e, device=self._where), self.slot].clone())
        return result

    def _align(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        while a.shape[1] < b.shape[1]:
            a = torch.cat([a, self._blank(a.shape[0], 1)], 1)
        while b.shape[1] < a.shape[1]:
            b = torch.cat([b, self._blank(b.shape[0], 1)], 1)
        return a, b

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        next_tensordict = super()._step(tensordict, next_tensordict)
        if self.slots:
            assert self.bank is not None
            assert self.slot is not None
            rows = torch.arange(len(self.slot), device=self._where)
            self.bank[rows, self.slot] = next_tensordict.get(self.key)
            self.slot, self._furthest = self.slot + 1, self._furthest + 1
            if self._furthest >= self.bank.shape[1]:
                self.bank = torch.cat([self.bank, self._blank(self.bank.shape[0], 1)], 1)
            next_tensordict.set(self.key, self.bank[rows, self.slot].clone())
        return next_tensordict

    def of_environment(self, tensordict: TensorDictBase, e: int = 0) -> Tensor:
        """What environment e remembers, to be saved with a policy, `[T, *group, N, A]`; `tensordict` is its root."""
        if self.slots:
            assert self.bank is not None
            return self.bank[e].clone()
        latent: Tensor = tensordict.get(self.key)[e]
        return latent.unsqueeze(0).clone()

    def get_extra_state(self) -> dict[str, Any]:
        """Bank and slots; the latent at hand is in the tensordict."""
        return {name: None if x is None else x.clone() for name, x in (("bank", self.bank), ("slot", self.slot))}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes up what `get_extra_state` gave."""
        self.bank, slot = (
            None if state[name] is None else state[name].clone().to(self._where) for name in ("bank", "slot")
        )
        self._set_slot(slot)
