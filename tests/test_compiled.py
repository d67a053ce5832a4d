"""Losses and gradients as one graph: those of autograd, and what an objective adds to its pure losses as well.

`force_eager` leaves the compiler out, so that the transforms alone are what is tested; that compiled runs learn the
same is in `test_training.py`.
"""

import copy

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from diffpolicy import ActionMemory, DiffusionPolicy
from diffpolicy.networks import CriticEnsemble
from diffpolicy.objectives import LatentDiscreteSACLoss
from diffpolicy.training.compiled import LossGraph

AGENTS, ROWS, F, A = 3, 7, 4, 5


@pytest.fixture(autouse=True)
def uncompiled():
    with torch.compiler.set_stance("force_eager"):
        yield


class Held(LatentDiscreteSACLoss):
    """Holds the entropies' weights at 1 by a loss of its own, which its pure losses know nothing of."""

    def forward(self, tensordict):
        losses = super().forward(tensordict)
        losses["loss_held"] = (self.log_alpha - 1).square().sum()
        return losses


def built(cls, agents):
    policy = DiffusionPolicy(choices=A, observation_dim=F, agents=agents, prior=ActionMemory(), steps=3)
    critic = CriticEnsemble(F, A, agents=agents, generator=torch.Generator().manual_seed(1))
    return cls(policy, critic, target_actor=True)


def rows(agents):
    g = torch.Generator().manual_seed(2)
    batch = (ROWS,) if agents is None else (agents, ROWS)

    def state():
        return {name: torch.randn(*batch, n, generator=g) for name, n in (("observation", F), ("latent", A))}

    chosen = {"action": torch.randint(A, batch, generator=g), "reward": torch.randn(batch, generator=g)}
    return TensorDict({**state(), **chosen, "next": state()}, batch)


def by_autograd(loss, td):
    losses = loss(td)
    sum(v for k, v in losses.items() if k.startswith("loss")).backward()
    return losses, [p.grad for p in loss.parameters() if p.requires_grad]


@pytest.mark.parametrize("cls", [LatentDiscreteSACLoss, Held])
@pytest.mark.parametrize("agents", [None, AGENTS])
def test_the_graph_gives_the_losses_and_gradients_of_autograd(cls, agents):
    loss = built(cls, agents)
    losses, gradients = by_autograd(copy.deepcopy(loss), rows(agents))
    graph = LossGraph(loss)
    for _ in range(2):  # the second time they stand in the place of the first
        state = loss.policy.generator.get_state()
        found = graph(rows(agents))
        loss.policy.generator.set_state(state)
        graph.give()
        total = sum(v for k, v in found.items() if k.startswith("loss"))
        assert total.requires_grad == (cls is Held)
        if total.requires_grad:
            total.backward()
        for name, value in losses.items():
            torch.testing.assert_close(found[name], value)
        for parameter, gradient in zip((p for p in loss.parameters() if p.requires_grad), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)
            assert parameter.grad.stride() == parameter.stride()  # a fused optimiser goes by memory


def test_an_objective_is_its_own_again_when_the_graph_has_run():
    loss = built(LatentDiscreteSACLoss, None)
    graph = LossGraph(loss)
    assert not graph(rows(None))["loss_actor"].requires_grad
    assert loss(rows(None))["loss_actor"].requires_grad
    assert isinstance(copy.deepcopy(loss), nn.Module)


def test_a_pure_loss_may_be_a_single_tensor():
    class Line(nn.Module):
        out_keys = ("loss_line",)

        def __init__(self):
            super().__init__()
            self.slope = nn.Parameter(torch.tensor(2.0))

        def losses(self, x):
            return (self.slope * x).sum()

        def forward(self, td):
            return TensorDict({"loss_line": self.losses(td["x"])})

    line = Line()
    graph = LossGraph(line)
    assert graph(TensorDict({"x": torch.ones(3)}))["loss_line"] == 6
    graph.give()
    assert line.slope.grad == 3
