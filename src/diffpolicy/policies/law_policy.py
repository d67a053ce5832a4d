"""`LawPolicy`: what TorchRL's losses ask of a policy: the law of its actions, and a record that tells it again."""

from __future__ import annotations

from typing import Literal

from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from diffpolicy import _validate as check
from diffpolicy.errors import InputError
from diffpolicy.policies.chain_law import ChainLaw
from diffpolicy.policies.decided import Decided
from diffpolicy.policies.draws import outside_graphs
from diffpolicy.policies.heads import CompositeHead
from diffpolicy.policies.law import HeadLaw, law_of_items, noise_of_items, recorded_noise
from diffpolicy.policies.masks import readable
from diffpolicy.policies.nested_keys import beside
from diffpolicy.policies.row_policy import RowPolicy
from diffpolicy.policies.rows import Rows


class LawPolicy(RowPolicy, base=True):
    """The half of `Policy` that reads a tensordict's items as rows, and tells what law their actions have.

    Its names are those that TorchRL's losses look for: `get_dist`, `dist_sample_keys`, `log_prob_keys`. `Policy` adds
    how it acts.
    """

    _record: bool | Literal["draws"] = False

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

    # What acting records

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

    # The law

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
