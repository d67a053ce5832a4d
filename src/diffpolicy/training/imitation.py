"""`ImitationModule`: regression on labels that fresh play gives, as a LightningModule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchrl.envs import EnvBase

from diffpolicy import _validate as check
from diffpolicy.policies.draws import Draws
from diffpolicy.training.averaging import averaged
from diffpolicy.training.rounds import RoundsModule, require_functions
from diffpolicy.training.trainable import described


class ImitationModule(RoundsModule):
    """Dataset aggregation: play, label what was met, regress on the last rounds' rows, repeat.

    A module that imitates on rows of the teacher's own play meets other rows as soon as it errs; so the rows are those
    that it meets itself (DAgger, Ross et al. 2011, arXiv 1011.0686).

    One training step is one round, which `fit` takes as an episode: `collect` plays with the module as it is and gives
    labelled rows; then `updates` steps of Adam follow on rows drawn from the last `keep` rounds.

    Args:
        module: whose parameters move.
        collect: `collect(round) -> tensors` of equal length, the rows and their labels.
        loss: `loss(*rows) -> scalar`, of the module as it is.
        rounds: in all.
        updates: of each round.
        keep: rounds that are remembered.
        batch_size: rows of an update.
        learning_rate: of Adam.
        seed: of the draws of rows.
        ema: decay of averaged weights, below 1, which `policy` then has, so that they are evaluated and saved; or None.
        env: where the module is to decide, if it is a policy: `fit` checks before the first round that it can; None:
            nothing is checked.

    Raises:
        InputError: a number is out of range, or an argument of another kind.

    Example:
        >>> line, x = torch.nn.Linear(1, 1), torch.linspace(-1, 1, 64).unsqueeze(-1)
        >>> loss = lambda x, y: (line(x) - y).square().mean()
        >>> module = ImitationModule(line, lambda _: (x, 3 * x), loss, rounds=2, learning_rate=0.05, batch_size=64)
        >>> fit(module).episodes
        2
        >>> round(line.weight.item(), 2)
        3.0
    """

    kind = "imitation"

    def __init__(
        self,
        module: nn.Module,
        collect: Callable[[int], tuple[Tensor, ...]],
        loss: Callable[..., Tensor],
        *,
        rounds: int,
        updates: int = 300,
        keep: int = 3,
        batch_size: int = 4096,
        learning_rate: float = 3e-3,
        seed: int = 0,
        env: EnvBase | None = None,
        ema: float | None = None,
    ) -> None:
        rounds = check.integer(rounds, "rounds", least=1)
        super().__init__(module, rounds=rounds, env=env)
        require_functions(collect=collect, loss=loss)
        self.rounds = rounds
        self.updates = check.integer(updates, "updates", least=1)
        self.keep = check.integer(keep, "keep", least=1)
        self.batch_size = check.integer(batch_size, "batch_size", least=1)
        check.number(learning_rate, "learning_rate", least=0)
        self.collect, self.loss = collect, loss
        self.learning_rate, self.ema = learning_rate, ema
        self.averaged = None if ema is None else averaged(module, ema)
        self.generator = Draws(seed)
        self.memory: list[tuple[Tensor, ...]] = []

    @property
    def policy(self) -> nn.Module:  # type: ignore[override]
        return self.module if self.averaged is None else self.averaged.module

    def content(self) -> dict[str, Any]:
        return {
            **super().content(),
            "collect": described(self.collect),
            "loss": described(self.loss),
            **{name: getattr(self, name) for name in ("rounds", "updates", "keep", "batch_size", "learning_rate")},
            "seed": self.generator.initial_seed(),
            **({} if self.ema is None else {"ema": self.ema}),
        }

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.module.parameters(), lr=self.learning_rate)

    def training_step(self, number: int, batch_idx: int) -> None:
        self.memory = [*self.memory, self.collect(int(number))][-self.keep :]
        columns = [torch.cat(column) for column in zip(*self.memory, strict=True)]
        optimizer = self.optimizers()
        total = 0.0
        for _ in range(self.updates):
            rows = torch.randint(len(columns[0]), (self.batch_size,), generator=self.generator)
            loss = self.loss(*(column[rows] for column in columns))
            optimizer.zero_grad()  # type: ignore[union-attr]
            self.manual_backward(loss)
            optimizer.step()  # type: ignore[union-attr]
            if self.averaged is not None:
                self.averaged.update_parameters(self.module)
            total += float(loss.detach())
        self.end_round(number, loss=total / self.updates)

    def state(self) -> dict[str, Any]:
        return {"memory": [list(rows) for rows in self.memory], "generator": self.generator.get_state()}

    def take(self, state: dict[str, Any]) -> None:
        self.memory = [tuple(rows) for rows in state["memory"]]
        self.generator.set_state(state["generator"])
