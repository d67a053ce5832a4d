"""`PolicyModule`: what every policy of ours is: a tensordict module with a generator of its own, on one device."""

from __future__ import annotations

from typing import Any

import torch
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase, TensorDictPrimer

from diffpolicy.policies.draws import Draws


class PolicyModule(TensorDictModuleBase):
    """A module that writes an action. A subclass gives `forward`, and its constructor calls `_start`."""

    agents: int | None
    information: str
    trained: dict[str, Any]
    generator: Draws
    seed: int

    def _start(self, seed: int, information: str, agents: int | None = None) -> None:
        """Begins its draws. Args: seed: of them. information: what it reads. agents: of own parameters, or None."""
        self.seed, self.information, self.agents = seed, information, agents
        self.trained = {}
        self.generator = Draws(seed)

    @property
    def device(self) -> torch.device:
        """Of the parameters; the CPU where there are none."""
        return self._first_parameter().device

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters; float32 where there are none."""
        return self._first_parameter().dtype

    def _first_parameter(self) -> Tensor:
        """A parameter; where it stands is kept, since finding it costs as much as a small layer."""
        place = self.__dict__.get("_place")
        if place is None:
            held = ((m, name) for m in self.modules() for name, p in m._parameters.items() if p is not None)
            place = next(held, None)
            if place is None:  # a rule that is written as a policy has none
                return torch.zeros((), device="cpu")
            self.__dict__["_place"] = place
        module, name = place
        parameter: Tensor = module._parameters[name]
        return parameter

    @property
    def remembers(self) -> bool:
        """Whether it reads a latent action that it remembers."""
        return False

    def reseed(self, seed: int, stream: int = 0) -> None:
        """Begins a stream of a seed, so that copies of a policy, as a collector's workers have, draw apart.

        Args:
            seed: at least 0. stream: number of the copy. The parameters of a policy that is made with the seed are
                drawn from the beginning of stream 0, so it draws other numbers than one that begins it anew.
        """
        self.generator.reseed(seed, stream)

    def primer_for(self, env: EnvBase) -> TensorDictPrimer | None:
        """What an environment needs to carry what the policy remembers; None, since it remembers nothing."""
        return None

    def check_env(self, env: EnvBase) -> None:
        """Raises InputError if the policy does not fit an environment."""

    def get_extra_state(self) -> dict[str, Tensor]:
        """The generator's state, so that a checkpoint continues the same draws."""
        return {"generator": self.generator.get_state()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Takes up what `get_extra_state` gave."""
        self.generator.set_state(state["generator"].cpu().to(torch.uint8))
