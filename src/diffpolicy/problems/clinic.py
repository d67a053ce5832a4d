"""`Clinic`: one doctor, three kinds of patients; the smallest whole problem, and the pattern of your own."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch.nn.functional import one_hot
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from diffpolicy.environments import Cost, EnvProblem

ARRIVAL = torch.tensor([0.20, 0.15, 0.10])  # how likely one of each kind comes in a minute
DONE = torch.tensor([0.90, 0.40, 0.60])  # how likely a minute of the doctor is enough
PRICE = torch.tensor([1.0, 1.0, 4.0])  # of a minute's waiting
KINDS, MINUTES = 3, 50


class Clinic(EnvBase):
    """Each minute one doctor sees one of those who wait, and may need longer; all others wait.

    To see whoever has the largest price x chance of being done is the best there is (the c-mu rule; Buyukkoc,
    Varaiya and Walrand 1985, Adv. Appl. Prob. 17), so one knows how far a learned policy is from it.

    Args:
        batch: clinics side by side. seed: of who comes and who is done.
        masked: whether `action_mask` says who waits; False: there is none, for actions that no such mask fits.

    Example:
        >>> env = Clinic(2)
        >>> td = env.reset()
        >>> td["observation"].tolist(), td["action_mask"].all().item()
        ([[4.0, 4.0, 4.0], [4.0, 4.0, 4.0]], True)
    """

    def __init__(self, batch: int, seed: int = 0, masked: bool = True) -> None:
        super().__init__(batch_size=[batch])
        self.generator, self.masked = torch.Generator().manual_seed(seed), masked
        waits = {"action_mask": Binary(KINDS, (batch, KINDS), dtype=torch.bool)} if masked else {}
        self.observation_spec = Composite(observation=Unbounded((batch, KINDS)), **waits, shape=(batch,))
        self.action_spec = Categorical(KINDS, (batch,))
        self.reward_spec = Unbounded((batch, 1))
        ends = {name: Binary(1, (batch, 1), dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(ends, shape=(batch,))
        self.waiting, self.minute = torch.zeros(batch, KINDS), torch.zeros(batch, 1)

    def _now(self) -> TensorDict:
        over, someone = self.minute >= MINUTES, self.waiting > 0
        now = {"observation": self.waiting.clone(), "done": over, "truncated": over.clone()}
        if self.masked:
            now["action_mask"] = someone | ~someone.any(-1, keepdim=True)  # where nobody waits, anything goes
        return TensorDict({**now, "terminated": torch.zeros_like(over)}, batch_size=self.batch_size)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        again = torch.ones_like(self.minute, dtype=torch.bool)
        if tensordict is not None:  # lanes that have not ended go on as they are
            again = tensordict.get("_reset", again)
        self.waiting, self.minute = self.waiting.masked_fill(again, 4.0), self.minute.masked_fill(again, 0.0)
        return self._now()

    def cured(self, action: Tensor) -> Tensor:
        """The chance that one patient of each kind leaves, `[E, 3]`.

        Args:
            action: whom the doctor sees, `[E]`.
        """
        return one_hot(action, KINDS) * DONE

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        u = torch.rand(2, *self.waiting.shape, generator=self.generator)
        left = u[0] < self.cured(tensordict["action"])
        self.waiting = (self.waiting - left.float()).clamp_min(0) + (u[1] < ARRIVAL)
        self.minute = self.minute + 1
        return self._now().set("reward", -(self.waiting * PRICE).sum(-1, keepdim=True))

    def _set_seed(self, seed: int | None) -> None:
        self.generator.manual_seed(seed or 0)

    def get_extra_state(self) -> dict[str, Any]:
        """Makes a run that is resumed in the middle of an episode play on as if nothing had happened."""
        return {"generator": self.generator.get_state(), "waiting": self.waiting, "minute": self.minute}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes up what `get_extra_state` gave."""
        self.generator.set_state(state["generator"])
        self.waiting, self.minute = state["waiting"], state["minute"]


def longest_queue(td: TensorDictBase) -> TensorDictBase:
    """Sees one of the kind of which most wait.

    Args:
        td: what a `Clinic` shows.

    Returns:
        The same, with `action`, int64 of its batch.

    Example:
        >>> td = Clinic(1).reset().set("observation", torch.tensor([[1.0, 3.0, 2.0]]))
        >>> longest_queue(td)["action"].item()
        1
    """
    return td.set("action", td["observation"].argmax(-1))


def dearest_first(td: TensorDictBase) -> TensorDictBase:
    """Sees, of those who wait, one with the largest price x chance of being done; nothing costs less.

    Args:
        td: what a `Clinic` shows.

    Returns:
        The same, with `action`, int64 of its batch.

    Example:
        >>> td = Clinic(1).reset().set("observation", torch.tensor([[1.0, 3.0, 0.0]]))
        >>> dearest_first(td)["action"].item()  # 1 x 0.9 > 1 x 0.4
        0
    """
    return td.set("action", ((td["observation"] > 0) * PRICE * DONE).argmax(-1))


problem = EnvProblem(
    Clinic,
    steps=MINUTES,
    rules={"longest-queue": longest_queue, "dearest-first": dearest_first},
    cost=Cost("waiting", per="step"),
    name="clinic",
    version="1",
)
