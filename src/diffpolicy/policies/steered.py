"""`SteeredPolicy`: a policy with a chain that may be guided, or begin from what is given, when it acts."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.policies.chain_policy import ChainPolicy
from diffpolicy.policies.decided import Decided
from diffpolicy.policies.draws import generator_on
from diffpolicy.policies.guidance import BestOf, ClassifierFree, Guidance, QGradient
from diffpolicy.policies.protocols import Decides
from diffpolicy.policies.remembering import RememberingPolicy
from diffpolicy.policies.row_policy import RowPolicy
from diffpolicy.policies.rows import Rows

Made = TypeVar("Made", bound="SteeredPolicy")


class SteeredPolicy(ChainPolicy, RememberingPolicy, base=True):
    """A chain policy whose guidance and start may be changed for acting, also after training.

    A subclass's constructor calls `_set_drop` and `_set_guidance`; `DiffusionPolicy` is one.

    Args:
        others: of `Policy`.

    Raises:
        InputError: a guidance or a start does not fit the policy.

    Example:
        >>> policy = DiffusionPolicy.from_specs(Clinic(4), steps=5, schedule="cosine")
        >>> state = Clinic(4).reset().set("start", torch.eye(3)[[0, 1, 2, 0]])  # logits to begin from
        >>> nearby = policy.with_start(level=1)  # little noise
        >>> isinstance(policy, SteeredPolicy), nearby(state)["action"].shape
        (True, torch.Size([4]))
    """

    guidance: Guidance | None = None
    condition_drop: float = 0.0
    null: nn.Parameter | None

    def _set_drop(self, condition_drop: float) -> None:
        """Args: condition_drop: chance that an update leaves out the condition of a row."""
        self.condition_drop = check.number(condition_drop, "condition_drop", least=0, most=1)
        lead = () if self.agents is None else (self.agents, 1)
        self.null = nn.Parameter(torch.zeros(*lead, self.condition_dim)) if condition_drop else None

    def _steering_form(self) -> dict[str, Any]:
        """The constructor's arguments that tell it, as JSON holds them."""
        return {
            **({"condition_drop": self.condition_drop} if self.condition_drop else {}),
            **({} if self.guidance is None else {"guidance": self.guidance.to_dict()}),
        }

    def _set_guidance(self, guidance: Guidance | None) -> None:
        if guidance is not None and not isinstance(guidance, Guidance):
            check.no_class(guidance, "guidance")
            raise InputError(f"guidance must be a Guidance, such as ClassifierFree(1.0), got {check.show(guidance)}")
        if guidance is not None:
            guidance.check(self)
        self.guidance = guidance
        # its parameters are saved with the policy's
        self.guiding: nn.Module | None = guidance.critic if isinstance(guidance, (BestOf, QGradient)) else None
        if self.record:
            self.record = self.record

    def with_guidance(self: Made, guidance: Guidance | None) -> Made:
        """The same parameters, guided otherwise when it acts.

        Args:
            guidance: `ClassifierFree`, `BestOf` or `QGradient`; None: none.

        Raises:
            InputError: it does not fit the policy.
        """
        other = self._twin()
        other._set_guidance(guidance)
        return other

    def with_start(self: Made, level: int | None) -> Made:
        """The same parameters, whose chains begin at a level of noise from an x_0 that is given, when it acts.

        It stands under `start` beside the action: an x_0, `[*, W]`, or, where the end of a chain is the action, an
        action. The chain goes on from q(x_t | x_0), t the level, so that less noise keeps more of what was given; with
        exact predictions, an x_0 of the law that is learned leads to the same law (Meng et al. 2022, arXiv 2108.01073).

        Args:
            level: 1..I, one of those that the sampler goes through, `path`; None: from the prior, as it was.

        Raises:
            InputError: the level is none of these, or the policy starts from what it remembers.
        """
        if level is not None and level not in self.path:
            raise InputError(f"level must be one of those that the chain goes through, {self.path}, got {level!r}")
        if level is not None and self.prior.remembers:
            raise InputError("a policy with an ActionMemory starts from what it remembers; use a GaussianPrior")
        other = self._twin()
        other.level = level
        kept = [key for key in self.in_keys if key != self.beside("start")]
        other.in_keys = kept if level is None else [*kept, self.beside("start")]
        return other

    @property
    def first(self) -> int:
        """Number of the step that a chain begins with."""
        return 0 if self.level is None else self.path.index(self.level)

    def read_latent(self, td: TensorDictBase, rows: Rows) -> Tensor | None:
        """The latent of rows, or where their chains begin. Args: td: of the items. rows: of them.

        Raises:
            InputError: a chain is to begin from what is given, and nothing is.
        """
        if self.level is None:
            return super().read_latent(td, rows)
        given = td.get(self.beside("start"), None)
        if given is None:
            raise InputError(
                f"a chain that begins at level {self.level} reads {self.beside('start')!r}, which is not there"
            )
        tokens = self.head.x0_is == "action"
        x0 = self.head.encode(given) if tokens else given
        width = self.head.slots if self.head.tokens else self.choices
        if x0.shape != (*rows.shape, width):
            raise InputError(f"{self.beside('start')!r} must give {[*rows.shape, width]} numbers, got {list(x0.shape)}")
        return rows.take(x0 if self.head.tokens else x0.to(self.dtype))

    def nothing(self, condition: Tensor) -> Tensor:
        """What stands for conditions that are left out, which items exist told all the same.

        Args:
            condition: `[.., M, C]`.
        """
        assert self.null is not None
        null = self.null.expand_as(condition)
        return self.reading.with_flags(null, condition) if self.reading.flagged else null

    def drops(self, rows: torch.Size) -> Tensor | None:
        """Which conditions are left out of an update, drawn anew, bool `[.., M]`; None: none. Args: rows: `[.., M]`."""
        if self.null is None:
            return None
        generator = generator_on(self.generator, self.device)
        drawn = torch.rand(rows, generator=generator, device=generator.device)
        return drawn.to(self.device) < self.condition_drop

    def learned(self, observation: Tensor, dropped: Tensor | None = None) -> object:
        """What the denoiser is conditioned on in an update. Args: observation: `[.., M, F]`. dropped: of `drops`."""
        condition = self.condition(observation)
        if dropped is not None:
            condition = torch.where(dropped.unsqueeze(-1), self.nothing(condition), condition)
        return self.prepared(condition)

    def conditioned(self, condition: Tensor) -> object:
        return self.prepared(condition) if self.guidance is None else self.guidance.conditioned(self, condition)

    def decided(self, condition: Tensor, latent: Tensor | None, mask: Tensor | None, still: bool) -> Decided:
        """As of any policy; where a critic chooses, the best of several draws."""
        guide = self.guidance
        if not isinstance(guide, BestOf) or still:
            return super().decided(condition, latent, mask, still)
        many = [None if x is None else x.repeat_interleave(guide.draws, -2) for x in (condition, latent, mask)]
        assert many[0] is not None
        made = super().decided(many[0], many[1], many[2], still)
        return made.picked(guide.best(self, many[0], made.action), guide.draws, len(self.head.event))

    def check_draws(self) -> None:
        """As of any policy.

        Raises:
            InputError: a critic chooses among several draws.
        """
        if isinstance(self.guidance, BestOf):
            raise InputError(
                "draws that a critic chose among several have no recorded chain; remove the guidance, "
                "with_guidance(None)"
            )

    def check_law(self) -> None:
        """As of any policy.

        Raises:
            InputError: its actions have no law that `get_dist` could give, also where a critic chooses among several.
        """
        super().check_law()
        if isinstance(self.guidance, BestOf):
            raise InputError(
                "actions that a critic chose among several have no law; remove the guidance, with_guidance(None)"
            )

    @property
    def reads_latent(self) -> bool:
        return self.remembers or self.level is not None

    @property
    def embeds(self) -> bool:
        """Whether what is conditioned on is something else than what is observed."""
        return type(self).embed is not RowPolicy.embed


def steered(policy: Decides, kind: str, number: float) -> Decides:
    """A policy that is guided otherwise, by the critic that it was saved with; one without a chain as it is.

    Args:
        policy: any. kind: `best-of`, of so many draws; `q-gradient`, of such a scale; `classifier-free`, of such a
            weight; or `none`. number: of it.

    Raises:
        InputError: the policy holds no critic, or the guidance does not fit it.
    """
    if not isinstance(policy, SteeredPolicy) or kind == "none":
        return policy.with_guidance(None) if isinstance(policy, SteeredPolicy) else policy
    if kind == "classifier-free":
        return policy.with_guidance(ClassifierFree(number))
    own = policy.guidance
    if not isinstance(own, (BestOf, QGradient)):
        raise InputError(
            f"guidance {kind} asks a critic, and with this policy none was saved; train it with best_of above 1"
        )
    if kind == "q-gradient":
        return policy.with_guidance(QGradient(own.critic, number))
    reads = own.reads if isinstance(own, BestOf) else "pair"
    return policy.with_guidance(BestOf(own.critic, int(number), reads))
