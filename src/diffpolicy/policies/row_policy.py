"""`RowPolicy`: what a policy makes of rows of tensors: a condition, the networks' output, a law, an action."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy.networks.dense import width_of
from diffpolicy.networks.normalizer import RunningNorm
from diffpolicy.policies.decided import Decided
from diffpolicy.policies.draws import generator_on, outside_graphs
from diffpolicy.policies.evidence import check_evidence, evidence, is_all_ours
from diffpolicy.policies.heads import CategoricalHead, Head, head_from_dict, head_of_width
from diffpolicy.policies.joint import joint_row
from diffpolicy.policies.nested_keys import as_json, plain
from diffpolicy.policies.reading import Reading
from diffpolicy.policies.rows import in_blocks
from diffpolicy.policies.saving import SavedPolicy

LARGEST = 10**6
"""Of any width: a larger one is a slip, and would only exhaust the memory."""
Made = TypeVar("Made", bound="RowPolicy")


class RowPolicy(SavedPolicy, base=True):
    """The half of `Policy` that knows no tensordicts of environments: pure functions of rows and of their draws."""

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
        joint_items: Sequence[int] | None = None,
        action_keys: Sequence[NestedKey] | None = None,
        mask_keys: Sequence[NestedKey | None] | None = None,
        information: str = "paper",
        normalize: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        choices = check.integer(choices, "choices", least=1, most=LARGEST)
        observation_dim = check.integer(observation_dim, "observation_dim", least=1, most=LARGEST)
        agents = check.integer(agents, "agents", least=1, most=LARGEST) if agents else None
        seed = check.integer(seed, "seed", least=0)
        check.flag(normalize, "normalize")
        self._start(seed, information, agents)
        self.choices, self.observation_dim = choices, observation_dim
        check.no_class(head, "head")
        self.head = CategoricalHead() if head is None else head
        self.reading = Reading.of(
            observation_dim,
            observation_keys,
            observation_widths,
            observation_shapes,
            observation_values,
            mask_key,
            valid_key,
            agents,
            item_dims,
            joint_items,
            mask_keys,
        )
        self.condition_dim = observation_dim if condition_dim is None else width_of(condition_dim, "condition_dim")
        self.action_key = plain(action_key)
        self.action_keys: list[NestedKey] = [plain(k) for k in action_keys or [self.action_key]]
        self.observation_keys, self.item_dims = list(self.reading.keys), self.reading.item_dims
        self.mask_key, self.valid_key = self.reading.mask, self.reading.valid
        self.normalizer = RunningNorm(observation_dim) if normalize else None
        self.in_keys = self.reading.in_keys
        self.out_keys = list(self.action_keys)

    @property
    def head(self) -> Head:
        """What the networks' output means, in the size of their width."""
        return self._head

    @head.setter
    def head(self, head: Head) -> None:
        self._head = head_of_width(head, self.choices)

    # What a subclass gives

    def embed(self, td: TensorDictBase) -> Tensor:
        """What is conditioned on, `[*, C]`: by default the observation keys, side by side.

        Acting and training both call it, on rows (or their joint items) of any batch that hold the observation keys
        and nothing else. If C is not the observations' own width, tell the constructor: `condition_dim=C`.
        """
        return self.observe(td)

    def observe(self, td: TensorDictBase) -> Tensor:
        """The observation keys, side by side, `[*, F]`."""
        return self.reading.observe(td)

    def output(self, condition: Tensor, latent: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """What the networks make of rows, `[M, A]` or `[G, M, A]`: the end of the chain, or an MLP's outputs.

        Args:
            condition: what `embed` gave, `[.., M, C]`.
            latent: `[.., M, A]`, where one is read.
            noise: what `noise` drew, or None: it is drawn here.
        """
        raise NotImplementedError

    def end(self, condition: Tensor, latent: Tensor | None, noise: Tensor | None, mask: Tensor | None = None) -> Tensor:
        """What the head reads once it is decoded: `output`, unless the mask is heeded on the way. Args: of `law`."""
        return self.output(condition, latent, noise)

    def decode(self, x0: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of rows from the networks' output.

        Args:
            x0: `[.., M, A]`.
            mask: allowed choices, bool `[.., M, A]`, or None.
        """
        return x0

    # Draws

    @property
    def reads_latent(self) -> bool:
        """Whether `output` is given a latent."""
        return self.remembers

    @property
    def draws(self) -> int:
        """Numbers of N(0, 1) that a choice takes for each of its logits."""
        return 0

    def noise(self, rows: torch.Size) -> Tensor | None:
        """What one pass over rows, `[M]` or `[G, M]`, takes of N(0, 1), `[draws, *rows, A]`, or None."""
        draws = self.draws
        if not draws:
            return None
        generator = generator_on(self.generator, self.device)
        return torch.randn((draws, *rows, self.choices), generator=generator, device=generator.device)

    def no_noise(self, rows: torch.Size) -> Tensor | None:
        """What stands for `noise` where an action without chance is asked for: its mode, zeros of the same shape."""
        return torch.zeros(self.draws, *rows, self.choices) if self.draws else None

    def choose(self, logits: Tensor) -> Tensor:
        """Actions of rows, `[*, *event]`. Args: logits: or other parameters of the head's law, `[*, A]`."""
        return self.head.sample(logits, self.head.draws(logits.shape[:-1], generator_on(self.generator, logits.device)))

    def decided(self, condition: Tensor, latent: Tensor | None, mask: Tensor | None, still: bool) -> Decided:
        """What acting makes of rows; all that is drawn is drawn at once, the chain's before the choice's.

        Args:
            condition, latent, mask: of `law`; the condition as `condition` gives it. still: whether nothing is drawn.
        """
        noise = self.no_noise(condition.shape[:-1]) if still else outside_graphs(self.noise, condition.shape[:-1])
        x0 = in_blocks(self.end, condition, latent, None if noise is None else noise.to(condition), mask, self.settled)
        law = self._law_of(x0, mask)
        return Decided(noise, x0, law, self.choose_at(law, None) if still else outside_graphs(self.choose, law))

    def settled(self) -> AbstractContextManager[None]:
        """While it lasts, what depends on no row is computed once; for passes over one set of parameters."""
        return nullcontext()

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

    # From observations to the law

    def normalized(self, observation: Tensor) -> Tensor:
        """Rows as networks read them, in their type. Args: observation: `[.., M, F]`, of any type of number."""
        observation = observation.to(self.dtype)
        if self.normalizer is None:
            return observation
        normal: Tensor = self.normalizer(observation)
        return self.reading.with_flags(normal, observation) if self.reading.flagged else normal

    def condition(self, observation: Tensor) -> Tensor:
        """What `embed` makes of rows of observations. Args: observation: `[.., M, F]`."""
        observation = self.normalized(observation)
        if type(self).embed is RowPolicy.embed:
            return observation
        values, flags = self.reading.apart(observation)
        td = TensorDict(batch_size=next(iter(values.values())).shape[:-1], device=observation.device)
        for key, part in values.items():
            td.set(key, part)
        embedded = self.embed(td)
        return joint_row(embedded, flags, self.reading.items) if self.reading.items else embedded

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
        return self._law_of(self.end(self.condition(observation), latent, noise, mask), mask)

    def logits(
        self,
        observation: Tensor,
        latent: Tensor | None = None,
        mask: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """What `law` gives, by the name of its parameters under a categorical head. Args: of `law`."""
        return self.law(observation, latent, mask, noise)

    def _law_of(self, x0: Tensor, mask: Tensor | None) -> Tensor:
        return self.head.law(self.decode(x0, mask), mask)

    # How files describe it

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON holds them."""
        return {
            "choices": self.choices,
            "observation_dim": self.observation_dim,
            "agents": self.agents,
            "action_key": as_json(self.action_key),
            **self.reading.to_dict(),
            **({"action_keys": [as_json(k) for k in self.action_keys]} if len(self.action_keys) > 1 else {}),
            "condition_dim": self.condition_dim,
            "information": self.information,
            "normalize": self.normalizer is not None,
            "seed": self.seed,
        }

    def _evidence(self) -> dict[str, Any]:
        return {} if is_all_ours(self) else {"evidence": evidence(self)}

    def _check_evidence(self, description: dict[str, Any]) -> None:
        check_evidence(self, description.get("evidence"))

    @classmethod
    def _from_config(cls: type[Made], config: dict[str, Any]) -> Made:
        for name in ("action_key", "mask_key", "valid_key"):
            config[name] = plain(config[name])
        for name in ("observation_keys", "action_keys", "mask_keys"):
            if name in config:
                config[name] = [plain(k) for k in config[name]]
        if "head" in config:
            config["head"] = head_from_dict(config["head"])
        return super()._from_config(config)
