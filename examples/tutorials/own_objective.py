r"""
Your own objective
==================

An :term:`objective` is the loss that trains a :term:`policy`. In this lesson you write your own, check it on a case
that can be solved by hand, turn it into a :term:`method`, and train it by its name: ``mine_method:method``.

The :term:`problem` is that of :doc:`own_problem`. Objective and method are in one file, ``mine_method.py``
(:download:`get it <../../examples/tutorials/mine_method.py>`).
"""

# %%
# The idea
# --------
#
# A *critic* :math:`Q(s, a)` learns what choice :math:`a` in state :math:`s` is worth, from the reward and what comes
# after. The policy :math:`\pi` should choose in proportion to :math:`e^{Q/T}`: mostly the best choice, and the others
# more often the larger the temperature :math:`T` is. So the actor's loss is the cross-entropy
#
# .. math:: L = - \sum_a p(a) \log \pi(a), \qquad p = \mathrm{softmax}(Q / T),
#
# and its gradient goes back through all :term:`denoising steps <step>` of the chain.
#
# The loss
# --------
#
# An objective is a ``LossModule`` of TorchRL. It reads a batch of :term:`transitions <transition>` and returns losses;
# those named ``loss...`` are added up.
#
# .. literalinclude:: ../../examples/tutorials/mine_method.py
#    :pyobject: BoltzmannLoss.forward
#    :dedent: 4
#
# Its core is two lines: ``policy.noise`` draws a chain's noise, and ``policy.law`` runs the chain and returns the
# distribution of the choices. Forbidden choices have chance zero there.
#
# .. literalinclude:: ../../examples/tutorials/mine_method.py
#    :pyobject: BoltzmannLoss.log_chances
#    :dedent: 4
#
# Two more methods are needed. They say what is optimised, and what follows after an update.
#
# .. literalinclude:: ../../examples/tutorials/mine_method.py
#    :pyobject: BoltzmannLoss.parameter_groups
#    :dedent: 4
#
# .. literalinclude:: ../../examples/tutorials/mine_method.py
#    :pyobject: BoltzmannLoss.update_targets
#    :dedent: 4
#
# Is it right?
# ------------
#
# Before training on a real problem, take a case that can be solved by hand. It has one state, four choices, rewards 0,
# 1, 2 and 3, and then it is over. With :math:`T = 1` the chances must become the softmax of the rewards.

import torch
from mine import Fires
from mine_method import BoltzmannLoss
from tensordict import TensorDict

from diffpolicy import DiffusionPolicy
from diffpolicy.networks import CriticEnsemble

policy = DiffusionPolicy.from_specs(Fires(1), steps=3, prediction="x0")
critic = CriticEnsemble(inputs=4, actions=4, generator=torch.Generator().manual_seed(0))
loss = BoltzmannLoss(policy, critic, temperature=1.0)
optimizer = torch.optim.Adam(loss.parameters(), lr=0.01)
state = {"observation": torch.zeros(256, 4), "action_mask": torch.ones(256, 4, dtype=torch.bool)}
over = torch.ones(256, 1, dtype=torch.bool)
draws = torch.Generator().manual_seed(0)
for _ in range(300):
    action = torch.randint(4, (256,), generator=draws)
    after = TensorDict(**state, terminated=over, batch_size=[256])
    rows = TensorDict(**state, action=action, reward=action.float(), next=after, batch_size=[256])
    optimizer.zero_grad()
    sum(loss(rows).values()).backward()
    optimizer.step()
print("learned:", *(f"{p:.3f}" for p in loss.log_chances(rows).exp().mean(0)))
print("by hand:", *(f"{p:.3f}" for p in torch.arange(4.0).softmax(-1)))

# %%
# The method
# ----------
#
# A method assembles policy and objective, with all settings. One that learns from a replay is an
# :py:class:`~diffpolicy.methods.OffPolicyMethod`. It says which policy, with which arguments, and which objective:
#
# .. literalinclude:: ../../examples/tutorials/mine_method.py
#    :pyobject: Boltzmann
#
# And one instance of it, with numbers:
#
# .. literalinclude:: ../../examples/tutorials/mine_method.py
#    :start-at: method = Boltzmann
#
# It is trained by its name
# -------------------------
#
# .. code-block:: console
#
#     $ diffpolicy train mine_method:method --problem mine:problem --environments 8 --episodes 192
#
# ``compare`` plays the :term:`rules <rule>` beside it:

from diffpolicy.cli import main as cli

cli.main(
    [
        *"compare --problem mine:problem --methods mine_method:method".split(),
        *"--episodes 192 --environments 8".split(),
        *"--eval-episodes 64 --processes 1 --quiet --out runs/fires/objective".split(),
    ]
)
cli.main("plot runs/fires/objective/learning_curves.csv --format svg".split())

# %%
# The curve jumps, since the fires of one round begin larger than those of another. The table is what counts:
# everything in it was played on the same 64 episodes.
#
# A setting is a field of the method: ``--set temperature=2`` is another run. A field that it does not have is
# refused:

cli.main("train mine_method:method --problem mine:problem --set temprature=2".split())

# %%
# :doc:`/extending` has the other parts of a method, and :doc:`/methods` the published ones.
