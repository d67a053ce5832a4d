"""The MLP noise predictor eps(x, i, condition), of one or of G agents."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffpolicy import _validate as check
from diffpolicy._deprecated import OldAttribute, keeps_keywords, with_keywords_of
from diffpolicy.errors import InputError
from diffpolicy.networks.dense import FUNCTIONS, MLP, Columns, Dense, activation, through, width_of

OUTPUTS = ("linear", "tanh", "softmax")


class Prepared(NamedTuple):
    """What does not change along the chain; of G agents with rows last (see `Columns`).

    Args:
        condition: `[M, H]`, or `[G, H, M]`. time: one bias a step, each `[1, H]`, or `[G, H, 1]`.
        layers: of G agents, that of x and those behind it.
    """

    condition: Tensor
    time: Sequence[Tensor]
    layers: Sequence[Columns] = ()


class TimeEmbedding(nn.Module):
    """Embeds steps by sinusoids (Vaswani et al. 2017, arXiv 1706.03762) and a small MLP, all steps 1..I at once.

    Args:
        steps: of the chain, I.
        dim: width, even.
        agents: G of them, each with parameters of its own, or None.
        generator: draws the initial values.

    Example:
        >>> TimeEmbedding(steps=5, dim=16, agents=None)().shape, TimeEmbedding(steps=5, dim=16, agents=4)().shape
        (torch.Size([5, 16]), torch.Size([4, 5, 16]))
    """

    sinusoids: Tensor
    stack = OldAttribute("agents")

    @keeps_keywords
    def __init__(self, steps: int, dim: int, agents: int | None, generator: torch.Generator | None = None) -> None:
        super().__init__()
        frequency = torch.exp(torch.arange(dim // 2) * (-torch.log(torch.tensor(10000.0)) / max(dim // 2 - 1, 1)))
        angle = torch.arange(1, steps + 1).unsqueeze(-1) * frequency
        self.register_buffer("sinusoids", torch.cat([angle.sin(), angle.cos()], -1), persistent=False)
        self.agents = agents
        self.mlp = MLP(dim, dim, (2 * dim,), "mish", agents, generator)

    def forward(self) -> Tensor:
        """`[I, dim]`, or `[G, I, dim]` of G agents."""
        x = self.sinusoids if self.agents is None else self.sinusoids.expand(self.agents, -1, -1)
        return self.mlp(x)  # type: ignore[no-any-return]


class MLPDenoiser(nn.Module):
    """Predicts eps(x, i, c) = out(MLP([x, time(i), c])), with the parts of the first layer kept apart.

    The condition's and the time's share of the first layer are the same for the whole chain, so `prepare` computes
    them once. A `DiffusionPolicy` makes one of its own unless it is given another network.

    Args:
        actions: width of x.
        condition: width of c.
        steps: I, the steps of the schedule.
        hidden: widths of the hidden layers, at least one.
        act: activation, `relu`, `mish`, `tanh` or `silu`.
        output: `softmax` (LAD-TS as released), `tanh` (D2SAC) or `linear`.
        time: width of the time embedding, even.
        agents: G, with parameters of their own, or None.
        generator: draws the initial values.

    Raises:
        InputError: a width or a name is out of range.

    Example:
        >>> denoiser = MLPDenoiser(actions=3, condition=6, steps=5)
        >>> prepared = denoiser.prepare(torch.zeros(8, 6))
        >>> denoiser(torch.zeros(8, 3), 5, prepared).shape
        torch.Size([8, 3])
    """

    stack = OldAttribute("agents")

    @keeps_keywords
    def __init__(
        self,
        actions: int,
        condition: int,
        steps: int,
        *,
        hidden: Sequence[int] = (20, 20),
        act: str = "relu",
        output: str = "linear",
        time: int = 16,
        agents: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check.choice(output, "denoiser output", OUTPUTS)
        if not check.sequence(hidden, "hidden"):
            raise InputError("a denoiser needs hidden widths of at least 1, got hidden = []")
        hidden = [width_of(width, f"hidden[{k}]") for k, width in enumerate(hidden)]
        time = width_of(time, "time")
        if time < 2 or time % 2:
            raise InputError(f"the time embedding's width must be even and at least 2, got time = {time}")
        fan_in = actions + time + condition
        self.actions, self.condition, self.steps, self.agents = actions, condition, steps, agents
        self.hidden, self.act_name, self.output, self.time = hidden, act, output, time
        self.fixed_time: Tensor | None = None
        self.embedding = TimeEmbedding(steps, time, agents, generator)
        self.of_x = Dense(actions, hidden[0], agents, generator, fan_in=fan_in, bias=False)
        self.of_time = Dense(time, hidden[0], agents, generator, fan_in=fan_in, bias=False)
        self.of_condition = Dense(condition, hidden[0], agents, generator, fan_in=fan_in)
        activation(act)
        self.act = FUNCTIONS[act]
        self.rest = MLP(hidden[0], actions, hidden[1:], act, agents, generator)

    @property
    def agents_side_by_side(self) -> int | None:
        """G, which tells a policy that each agent has parameters of its own here; None: there is one for all."""
        return self.agents

    def to_dict(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON holds them."""
        names = ("actions", "condition", "steps", "hidden", "output", "time", "agents")
        return {**{name: getattr(self, name) for name in names}, "act": self.act_name}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MLPDenoiser:
        """The denoiser that `to_dict` described, with fresh parameters."""
        return cls(**with_keywords_of(cls, data))

    def for_agent(self, agent: int) -> MLPDenoiser:
        """The denoiser of one of G agents, its parameters copied. Args: agent: 0..G - 1."""
        single = copy.deepcopy(self)
        for module in single.modules():
            if isinstance(module, Dense) and module.weight.ndim == 3:
                module.weight = nn.Parameter(module.weight[agent].detach().clone(memory_format=torch.contiguous_format))
                module.bias = None if module.bias is None else nn.Parameter(module.bias[agent, 0].detach().clone())
        single.agents = single.embedding.agents = None
        return single

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While it lasts, the time's share is a constant, which neither an exported graph nor a block need compute."""
        with torch.no_grad():
            self.fixed_time = self.of_time(self.embedding())
        try:
            yield
        finally:
            self.fixed_time = None

    def prepare(self, condition: Tensor) -> Prepared:
        """The shares of the first layer that the chain does not change. Args: condition: `[M, C]` or `[G, M, C]`."""
        # read once, since a pass in another thread may end it; what is trained meanwhile needs the time's gradient
        fixed = None if torch.is_grad_enabled() else self.fixed_time
        time = self.of_time(self.embedding()) if fixed is None else fixed
        if self.of_x.per_agent:
            layers = [self.of_x.columns(), *self.rest.columns()]
            return Prepared(self.of_condition.columns().of(condition.mT), time.mT.split(1, dim=-1), layers)
        return Prepared(self.of_condition(condition), time.split(1, dim=-2))

    def forward(self, x: Tensor, i: int | Tensor, prepared: Prepared) -> Tensor:
        """Predicted noise, of the shape of x, `[M, A]` or `[G, M, A]`. Args: i: 1..I, of all rows or `[.., M]`."""
        condition = prepared.condition
        time = _of_rows(prepared.time, i) if isinstance(i, Tensor) else prepared.time[i - 1]
        if not prepared.layers:
            return self._out(self.rest(self.act(torch.addmm(condition + time, x, self.of_x.weight))), -1)
        of_x, *rest = prepared.layers
        first = self.act(torch.baddbmm(condition, of_x.weight, x.mT).add_(time))
        return self._out(through(rest, self.act, first), -2).mT

    def _out(self, eps: Tensor, dim: int) -> Tensor:
        if self.output == "softmax":
            return eps.softmax(dim)
        return eps.tanh() if self.output == "tanh" else eps


def _of_rows(time: Sequence[Tensor], i: Tensor) -> Tensor:
    """The bias of each row's step, `[M, H]`, or `[G, H, M]`. Args: time: of `Prepared`. i: 1..I, `[M]` or `[G, M]`."""
    if i.ndim == 1:
        return torch.cat(list(time), -2)[i - 1]
    table = torch.cat(list(time), -1)
    return table.gather(-1, (i - 1).unsqueeze(-2).expand(-1, table.shape[-2], -1))
