r"""
Your own problem
================

You have a decision to make again and again, and it is not one of those on these pages. After this lesson it is a
:term:`problem` of your own: any :term:`method` trains on it, and your own :term:`rules <rule>` appear beside what was
learned, in one table and one picture.

The example is four fires and one plane. Each minute the plane drops its water on one of them. The fires grow, each at
its own speed. Which one should be next?
"""

# %%
# The environment
# ---------------
#
# All of it is in one file, ``mine.py`` (:download:`get it <../../examples/tutorials/mine.py>`). An environment is a
# class of TorchRL, :py:class:`~torchrl.envs.EnvBase`. It plays many fires side by side: ``batch`` *lanes*, each with
# its own :term:`episode`. It begins by saying what can be observed and done:
#
# .. literalinclude:: ../../examples/tutorials/mine.py
#    :pyobject: Fires.__init__
#    :dedent: 4
#
# * ``observation``: what a :term:`policy` sees. Here the four sizes, in hectares.
# * ``action_mask``: which :term:`choices <choice>` are allowed. See :term:`mask`.
# * ``action_spec``: one of four choices.
# * ``generator``: the source of all random numbers. Draw only from it, and the same seed gives the same fires.
#
# ``_reset`` begins an episode:
#
# .. literalinclude:: ../../examples/tutorials/mine.py
#    :pyobject: Fires._reset
#    :dedent: 4
#
# Lanes end at different times. One that has ended begins again while the others go on; ``_reset`` in the tensordict
# says which ones. Leave the others alone: training refuses an environment that does not.
#
# A :term:`step` is a minute: the plane puts out ``DROP`` hectares, then each fire grows by its own ``SPREAD``, more or
# less with the wind. Both are constants at the head of the file. A step gives a reward, of which you want much, so
# here it is minus what burns:
#
# .. literalinclude:: ../../examples/tutorials/mine.py
#    :pyobject: Fires._step
#    :dedent: 4
#
# ``shown`` returns what is observed after both. Two things end an episode. ``terminated`` means that it is really
# over: nothing burns any more. ``truncated`` means that we stop watching: an hour has passed, and the fires would go
# on. A method that learns what the future costs must know which of the two it was.
#
# .. literalinclude:: ../../examples/tutorials/mine.py
#    :pyobject: Fires.shown
#    :dedent: 4
#
# A seed restarts the random numbers. TorchRL requires this method of every environment; without it Python says
# ``Can't instantiate abstract class``. These lines follow ``shown``:
#
# .. literalinclude:: ../../examples/tutorials/mine.py
#    :pyobject: Fires._set_seed
#    :dedent: 4
#
# The problem
# -----------
#
# A rule is a function that writes ``action``. The first one is the :term:`baseline`: all others are compared with it.
# ``steps`` is the largest number of steps of an episode.
#
# .. literalinclude:: ../../examples/tutorials/mine.py
#    :start-at: def largest
#
# Is all of this right? :py:func:`~diffpolicy.check_problem` plays a few steps, and says nothing if it is:

from mine import problem

from diffpolicy import check_problem

check_problem(problem)

# %%
# If not, one sentence says what is wrong. Here somebody forgot to give the size of the fires a number for each lane:

from mine import Fires

from diffpolicy import EnvProblem, InputError


class Wrong(Fires):
    def _step(self, tensordict):
        return super()._step(tensordict).set("reward", -self.size)


try:
    check_problem(EnvProblem(Wrong, steps=60))
except InputError as error:
    print(error)

# %%
# The rules first
# ---------------
#
# Before you train anything, look at what rules reach. If all of them cost the same, there is nothing to learn.

from diffpolicy.experiments import evaluate

print(evaluate(problem, ["largest", "fastest", "random"], episodes=64).table())

# %%
# The :term:`ratio` is the cost relative to the baseline. Going for the largest fire first is not a good idea: the
# fastest one first burns less.
#
# Training
# --------
#
# ``d2sac`` is a :term:`method` whose policy is a diffusion policy: it makes each decision by denoising. 120
# episodes, eight of them side by side, which is soon done:

from diffpolicy.experiments import train

run = train(problem, "d2sac", episodes=120, environments=8, out="runs/fires/d2sac", overwrite=True)
for row in run.history[2::3]:
    print(f"after {row['episode']:3} episodes: {row['cost']:5.1f} ha x min in the last eight")

# %%
# You can use a run's folder wherever a policy's name is expected:

print(evaluate(problem, ["runs/fires/d2sac", "fastest", "largest"], episodes=64).table())

# %%
# The rule ``fastest`` knows how fast each fire grows. The policy has to find that out, and has not done so yet.
#
# The same as commands
# --------------------
#
# ``compare`` does all of this at once: it trains several methods, and plays them and every rule on the same
# episodes. Your problem is named ``mine:problem``: the file's name without ``.py``, and what it is called there. The
# file lies in the folder in which you type:
#
# .. code-block:: console
#
#     $ diffpolicy compare --problem mine:problem --methods d2sac,sac \
#         --episodes 240 --environments 8 --out runs/fires
#
# Here it is run from Python, with three settings of the methods changed. They begin to learn after 200 steps instead of
# 500, learn twice after each step, and in the end choose less randomly.

from diffpolicy.cli import main as cli

cli.main(
    [
        *"compare --problem mine:problem --methods d2sac,sac".split(),
        *"--episodes 192 --environments 8".split(),
        *"--set start_after=200 --set entropy_share=0.1 --set updates=2".split(),
        *"--eval-episodes 64 --processes 1 --quiet --out runs/fires/compare".split(),
    ]
)

# %%
# It wrote the figures as CSV, and a picture of each. :ref:`plot <plot>` draws them again. How the two learned. The
# curves jump, since the fires of one round begin larger than those of another:

cli.main("plot runs/fires/compare/learning_curves.csv --format svg".split())

# %%
# And what came of it, on 64 episodes on which nobody was trained. ``sac`` is the same without denoising.

cli.main("plot runs/fires/compare/comparison.csv --format svg".split())

# %%
# Left of 1 is better than the baseline. Both have found out in 192 episodes most of what ``fastest`` was told.
#
# Next: :doc:`own_policy` changes what decides, :doc:`own_objective` how it learns. If yours does not learn,
# :doc:`/faq` says where to look first.
