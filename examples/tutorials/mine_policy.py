"""A policy for the four fires: `diffpolicy train d2sac --problem mine:problem --set policy=mine_policy:Firefighter`."""

from dataclasses import dataclass

import torch
from mine import DROP
from torch import nn

from diffpolicy import DiffusionPolicy
from diffpolicy.policies import CategoricalHead


class Residual(nn.Module):
    """Predicts x_0 from x, the step of the chain, and what is seen."""

    def __init__(self, choices, condition, steps, width=64):
        super().__init__()
        self.arguments = {"choices": choices, "condition": condition, "steps": steps, "width": width}
        self.of_x = nn.Linear(choices, width)
        self.of_step = nn.Embedding(steps + 1, width)
        self.of_condition = nn.Sequential(
            nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.out = nn.Sequential(nn.SiLU(), nn.Linear(width, choices))

    def forward(self, x, t, cond):
        return self.out(self.of_condition(cond) + self.of_x(x) + self.of_step.weight[t])

    def config(self):
        return self.arguments


@dataclass(frozen=True)
class Shortlist(CategoricalHead):
    """Draws among the choices that are at least `share` times as probable as the likeliest one."""

    share: float = 0.6

    def sample(self, law, draws):
        p = law.softmax(-1)
        short = p >= self.share * p.amax(-1, keepdim=True)
        return super().sample(law.masked_fill(~short, -1e9), draws)


class Firefighter(DiffusionPolicy):
    """Sees sizes of order 1, and which fires a single load of water puts out."""

    @classmethod
    def from_specs(cls, env, **options):
        own = {"steps": 3, "prediction": "x0", "head": Shortlist(), "condition_dim": 8}
        return super().from_specs(
            env, **{**options, **own, "denoiser": Residual(choices=4, condition=8, steps=3)}
        )

    def embed(self, td):
        size = super().embed(td)
        return torch.cat([size / 6, ((size > 0) & (size <= DROP)).to(size)], -1)
