r"""
Your own policy
===============

A :term:`diffusion policy <policy>` has a few parts that you can replace: what it reads, the network that denoises, and
what the end of its :term:`chain` means. After this lesson you have written one of each, trained the policy, saved it,
and looked at how it decides.

The :term:`problem` is that of :doc:`own_problem`: four fires, one plane. The policy is in one file, ``mine_policy.py``
(:download:`get it <../../examples/tutorials/mine_policy.py>`).
"""

# %%
# What it reads
# -------------
#
# ``embed`` turns an :term:`observation` into the network's condition. Networks like numbers near 1, so the sizes are
# divided by 6. And we know something that helps: which fires a single load of water puts out.
#
# .. literalinclude:: ../../examples/tutorials/mine_policy.py
#    :pyobject: Firefighter.embed
#    :dedent: 4
#
# Four numbers became eight, so the policy is told ``condition_dim=8`` below.
#
# The network
# -----------
#
# A :term:`denoiser` is a module with ``forward(x, t, cond)``: ``x`` is the chain's state, ``t`` the number of the
# step, and ``cond`` what ``embed`` gave. This one predicts the chain's end, :math:`x_0`, from a sum of the three.
# ``config`` says what its constructor was given, so that a file can describe it.
#
# .. literalinclude:: ../../examples/tutorials/mine_policy.py
#    :pyobject: Residual
#
# The head
# --------
#
# The end of the chain is four numbers. A :term:`head` says what they mean. In a
# :py:class:`~diffpolicy.policies.CategoricalHead` they are the logits of the :term:`choices <choice>`, and one is
# drawn. Ours draws from a short list: whatever is much less probable than the best is left out.
#
# .. literalinclude:: ../../examples/tutorials/mine_policy.py
#    :pyobject: Shortlist
#
# A head is a frozen dataclass, and draws nothing itself: ``draws`` are random numbers that the policy has drawn
# for it.
#
# All together
# ------------
#
# ``from_specs`` reads what it can from the environment. Ours adds its own parts to what a :term:`method` asks for:
#
# .. literalinclude:: ../../examples/tutorials/mine_policy.py
#    :pyobject: Firefighter.from_specs
#    :dedent: 4
#
# Does it fit the environment? If not, :py:func:`~diffpolicy.check_policy` says so in one sentence, without playing.

from mine import Fires, problem
from mine_policy import Firefighter

from diffpolicy import InputError, check_policy

policy = Firefighter.from_specs(Fires(4))
check_policy(policy, Fires(4))
try:
    Firefighter.from_specs(Fires(4), stpes=2)
except InputError as error:
    print(error)

# %%
# A policy is a tensordict module. It decides for all lanes at once:

print(policy(Fires(4).reset())["action"])

# %%
# Train it
# --------
#
# Every method trains it, as ``changes={"policy": ...}``; on the command line ``--set
# policy=mine_policy:Firefighter``.

from diffpolicy.experiments import evaluate, train

settings = {"start_after": 200, "entropy_share": 0.1, "updates": 2}
run = train(
    problem,
    "d2sac",
    episodes=192,
    environments=8,
    changes={"policy": Firefighter, **settings},
    out="runs/fires/policy",
    overwrite=True,
)

# %%
# Save and load
# -------------
#
# ``train`` has saved it: ``policy.json`` names the class and its parts, ``policy.safetensors`` holds the numbers.
# It loads wherever ``mine_policy`` has been imported.

from diffpolicy import Policy

again = Policy.load("runs/fires/policy")
print(type(again).__name__, again.head, type(again.denoiser).__name__)

# %%
# What is the head worth? Compare it with the same policy with the whole list, ``share=0``:

from mine_policy import Shortlist

whole = Policy.load("runs/fires/policy")
whole.head = Shortlist(choices=4, share=0.0)
both = {"short list": again, "whole list": whole}
print(evaluate(problem, both, episodes=64, baseline="fastest").table())

# %%
# How it decides
# --------------
#
# ``evaluate`` with ``--out`` writes the chain of the first decision. It shows how probable each choice is in each state
# of the chain, from noise at the left, :math:`x_3`, to the end at the right, :math:`x_0`.

from diffpolicy.cli import main as cli

cli.main(
    [
        *"evaluate runs/fires/policy --problem mine:problem".split(),
        *"--eval-episodes 16 --quiet --out runs/fires/look".split(),
    ]
)
cli.main("plot runs/fires/look/chain.csv --format svg".split())

# %%
# Each column is a state, each row a choice, and dark is probable.
#
# Next: :doc:`own_objective` trains a policy by your own loss. :doc:`/extending` shows your own processes and samplers,
# too.
