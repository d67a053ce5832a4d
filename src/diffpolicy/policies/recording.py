"""`RecordingPolicy`: a policy with a chain whose states can be recorded, and how probable each of its steps is."""

from __future__ import annotations

from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from diffpolicy.diffusion.discrete import Ancestral
from diffpolicy.diffusion.kernels import over_slots
from diffpolicy.diffusion.sampler import Model
from diffpolicy.diffusion.tokens import TokenProcess
from diffpolicy.errors import InputError
from diffpolicy.policies.chain_law import ChainLaw
from diffpolicy.policies.decided import Decided
from diffpolicy.policies.law import HeadLaw, noise_of_items, recorded_noise
from diffpolicy.policies.rows import Rows, in_blocks
from diffpolicy.policies.steered import SteeredPolicy


class RecordingPolicy(SteeredPolicy, base=True):
    """What is known of chains whose end is the action itself: what they went through, and how probable that is.

    Such an action's probability is a sum over all chains that lead to it, which nobody can count; that of a recorded
    chain is the product of those of its steps (Ren et al. 2024, arXiv 2409.00588). `DiffusionPolicy` is one.

    Args:
        others: of `Policy`.

    Raises:
        InputError: the steps of a chain have no probability, or it starts from what no record tells.

    Example:
        >>> policy = DiffusionPolicy.from_specs(Clinic(1), schedule=MaskedProcess(3))
        >>> policy.record = True
        >>> state = policy(Clinic(4).reset())
        >>> isinstance(policy, RecordingPolicy), state["chain"].shape  # four states of one token
        (True, torch.Size([4, 4, 1]))
        >>> torch.allclose(policy.get_dist(state).log_prob(state["action"]), state["action_log_prob"])
        True
    """

    @property
    def vocabulary(self) -> int:
        """Numbers that the denoiser reads of a slot: W, or the tokens of a process, one-hot."""
        each = self.choices // self.head.slots
        return self.process.vocabulary(each) if isinstance(self.process, TokenProcess) else each

    def allowed_tokens(self, mask: Tensor | None, rows: torch.Size) -> Tensor:
        """Which tokens x_0 may be, bool `[*rows, K, W]`. Args: mask: as the head reads it, or None. rows: of it."""
        if mask is None:
            whole = torch.ones(self.head.mask_width, dtype=torch.bool, device=self.device)
            mask = self.head.read_mask(whole).expand(*rows, -1)
        allowed: Tensor = mask.unflatten(-1, (self.head.slots, -1))
        return allowed

    # What a chain went through

    def check_chain(self, steps: bool = True) -> None:
        """Refuses chains whose states no record tells, or where `steps` asks for it whose steps have no probability.

        Args:
            steps: whether the probabilities of single steps are asked for.

        Raises:
            InputError: names the policy's prior, its process or its sampler.
        """
        sampling = self.sampling
        if not self.process.discrete:
            if self.prior_network is not None:
                raise InputError(
                    f"recorded chains start from noise, and a {type(self.prior).__name__} would learn nothing from "
                    "them; use a GaussianPrior"
                )
            if steps and sampling.noisy_steps(self.process) < len(self.path):
                raise InputError(
                    f"a step of a {type(sampling).__name__} draws nothing, so that it has no density; give it a "
                    f"min_std above 0, got {sampling.min_std:g}"
                )
        if steps and isinstance(sampling, Ancestral) and sampling.order != "chance":
            raise InputError(
                "the order of a chain by confidence depends on its parameters, so steps may be impossible under "
                "others; use Ancestral(order='chance')"
            )

    def states_of(self, condition: Tensor, mask: Tensor | None, noise: Tensor) -> Tensor:
        """All states of the chains of given draws: tokens `[steps + 1, .., M, K]`, or numbers `[.., M, K, W]`.

        Args:
            condition: `[.., M, C]`. mask: `[.., M, A]`, or None. noise: of `noise` or `no_noise`, `[draws, .., M, *]`.
        """
        model, cond, allowed = self._model(condition, mask)
        noise = noise.to(condition.device)
        if isinstance(self.process, TokenProcess):
            first, rest = (noise[0], noise[1:]) if len(noise) else (None, None)
            start = self.process.terminal(first, allowed)
            return self.sampling.chain(model, start, cond, self.process, rest).states
        noise = noise.to(self.dtype).unflatten(-1, (self.head.slots, -1))
        start = self.process.terminal(self.prior.begin(None, noise[0]))
        return self.sampling.chain(model, start, cond, self.process, noise[1:]).states

    def step_log_probs(self, condition: Tensor, mask: Tensor | None, states: Tensor) -> Tensor:
        """Log-probability (density) of each step of chains, `[steps, .., M]`, with gradients to the parameters.

        Args:
            condition, mask: of `states_of`. states: that it gave, under these parameters or others.
        """
        model, cond, _ = self._model(condition, mask)
        return over_slots(self.sampling.log_prob(model, states, cond, self.process))

    def ends_of(self, states: Tensor) -> Tensor:
        """The actions in which chains ended, `[.., M, *event]`. Args: states: of `states_of`."""
        return self.head.mode(states[-1] if self.process.discrete else states[-1].flatten(-2))

    def _model(self, condition: Tensor, mask: Tensor | None) -> tuple[Model, Any, Tensor | None]:
        """The model of the sampler, what it is conditioned on, and of tokens which are allowed."""
        cond = self.conditioned(condition)
        if not self.process.discrete:

            def numbers(x: Tensor, t: int, cond: Any) -> Tensor:
                return self.predicted(x if self.items_read else x.flatten(-2), t, cond).reshape(x.shape)

            return numbers, cond, None
        allowed = self.allowed_tokens(mask, condition.shape[:-1])

        def logits(x: Tensor, t: int, cond: Any) -> Tensor:
            return self.token_logits(x, t, cond, allowed, self.vocabulary)

        return logits, cond, allowed

    # As TorchRL's losses ask for it

    def check_record(self) -> None:
        """As of any policy; where the end of a chain is the action, its steps have probabilities that tell it.

        Raises:
            InputError: they have none, or the chain starts from what no record tells.
        """
        if self.head.x0_is == "parameters":
            return super().check_record()
        self.check_draws()
        if self.remembers or self.level is not None:
            what = "an ActionMemory starts its chain" if self.remembers else "with_start starts a chain"
            raise InputError(
                f"{what} from a state that is not recorded, so its action has no probability; use a GaussianPrior"
            )
        return self.check_chain()

    def recorded_keys(self, record: bool | Literal["draws"]) -> list[NestedKey]:
        if self.head.x0_is == "parameters" or record is not True:
            return super().recorded_keys(record)
        return [self.beside("chain"), self.beside("action_log_prob")]

    def get_dist(self, tensordict: TensorDictBase) -> HeadLaw | ChainLaw:
        """As of any policy; where the end of a chain is the action, the law of the recorded chain.

        Args:
            tensordict: the policy's `in_keys`, and `chain` beside the action, which acting recorded (`record`).

        Raises:
            InputError: there is no recorded chain, or the policy's has no law.
        """
        if self.head.x0_is == "parameters":
            return super().get_dist(tensordict)
        self.check_record()
        rows, key = self.rows(tensordict), self.beside("chain")
        width = self.head.slots if self.process.discrete else self.choices
        states = recorded_noise(tensordict, key, rows, len(self.path) + 1, width)
        if states is None:
            raise InputError(
                f"{key!r} is not there: an action's probability is that of the chain which led to it, and acting "
                "writes it where record is True"
            )
        condition, _, mask, _ = self._read(tensordict, rows)
        states = states.to(condition.device)
        states = states if self.process.discrete else states.unflatten(-1, (self.head.slots, -1))
        total = self.step_log_probs(condition, mask, states).sum(0)
        return ChainLaw(rows.put(total.unsqueeze(-1)).squeeze(-1), self._put(rows, self.ends_of(states)))

    def _write_record(
        self,
        td: TensorDictBase,
        rows: Rows,
        condition: Tensor,
        mask: Tensor | None,
        made: Decided,
        action: Tensor,
    ) -> TensorDictBase:
        if self.head.x0_is == "parameters" or self.record == "draws":
            return super()._write_record(td, rows, condition, mask, made, action)

        def states_of(condition: Tensor, latent: Tensor | None, noise: Tensor | None, mask: Tensor | None) -> Tensor:
            assert noise is not None
            found = self.states_of(condition, mask, noise)
            return found if self.process.discrete else found.flatten(-2)

        with torch.no_grad():
            noise = None if made.noise is None else made.noise.to(condition.device)
            flat = in_blocks(states_of, condition, None, noise, mask)  # so that rounding is that of acting
            states = flat if self.process.discrete else flat.unflatten(-1, (self.head.slots, -1))
            total = self.step_log_probs(condition, mask, states).sum(0)
        td.set(self.beside("chain"), noise_of_items(flat, rows).to(action.device))
        return td.set(self.beside("action_log_prob"), rows.put(total.unsqueeze(-1)).squeeze(-1).to(action.device))
