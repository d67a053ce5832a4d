r"""
Scale out with Ray
==================

One service on one machine serves some dozens of GPU servers. If your servers are deployments of Ray Serve, a rule or
:term:`policy` can go into Ray itself, at one of two places.

This lesson shows both, and what they gained over Ray's own choice. It needs the extra ``ray`` (Ray 2.48 or later). Ray
takes half a minute to start and stop, so this page does not run it: it shows the output of the command at its end,
kept in a file.
"""

# %%
# As Ray's request router
# -----------------------
#
# Ray Serve draws two replicas and sends a request to the one with the shorter queue. A deployment with a
# ``request_router_config`` lets a policy rank all of them:
#
# .. code-block:: python
#
#     from ray import serve
#     from ray.serve.config import RequestRouterConfig
#
#     router = RequestRouterConfig(
#         request_router_class="diffpolicy.edge.serving.ray_router:PolicyRouter",
#         request_router_kwargs={"policy": "least-finish"},
#     )
#
#     @serve.deployment(num_replicas=3, max_ongoing_requests=200, request_router_config=router)
#     class Images: ...
#
# Nothing else of your deployment changes. The router learns from completions how fast each replica is.
#
# As the ingress
# --------------
#
# A router cannot hold a request until a replica is free (:doc:`hold_or_bind`). An ingress can. It is a
# :py:class:`~diffpolicy.edge.serving.Service`, as ``diffpolicy serve`` runs one, whose workers are handles of
# deployments instead of addresses:
#
# .. literalinclude:: ../../examples/serving/on_ray.py
#    :language: python
#    :start-at: service = Service(
#    :end-before: found["ingress that holds"]
#    :dedent: 4
#
# Both beside Ray's choice
# ------------------------
#
# ``examples/serving/on_ray.py`` (:download:`get it <../../examples/serving/on_ray.py>`) deploys three replicas that
# take 2, 6 and 12 ms a denoising step, and plays the same arrivals with each:
#
# .. code-block:: console
#
#     $ python examples/serving/on_ray.py | grep mean_ms > docs/_static/on_ray.txt

import json

with open("../../docs/_static/on_ray.txt") as file:
    print(text := file.read())
parts = [line.partition(" {") for line in text.splitlines()]
found = {name: json.loads("{" + numbers) for name, _, numbers in parts}

# %%
# As a picture:

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
for place, row in enumerate(found.values()):
    axes.plot([row["mean_ms"], row["p95_ms"]], [place, place], color="#767676", zorder=1)
    axes.scatter([row["mean_ms"]], [place], color="#d55e00", label="mean" if place == 0 else None)
    axes.scatter(
        [row["p95_ms"]],
        [place],
        color="#0072b2",
        marker="s",
        label="95th percentile" if place == 0 else None,
    )
axes.set(xlabel="delay, ms", xlim=(0, None), yticks=range(len(found)), yticklabels=list(found))
axes.invert_yaxis()
axes.grid(alpha=0.3, axis="x")
axes.legend(frameon=False)

# %%
# On 26 November 2026, with Ray 2.60, on two cores that other programs shared. Both are far ahead of Ray's choice, which
# does not know that one replica is six times as fast as another. Which of the two is ahead changes from run to run. A
# call through Ray takes some milliseconds of the 100 ms that a request takes, and that :term:`dead time` eats what
# holding gains. For images that take seconds it is nothing.
#
# Comparisons on a cluster
# ------------------------
#
# Training and comparing scale out too. ``diffpolicy compare`` runs each training and each evaluation as a task of Ray,
# on the machines of a cluster, with the same bits as on one machine:
#
# .. code-block:: console
#
#     $ diffpolicy compare --methods lad-ts,sac-ts --episodes 60 --seeds 5 --cluster ray:10.0.0.7:6379
#
# :ref:`cluster` says what the machines need, and what happens when one dies. :doc:`/serving/ray` has the limits of
# Ray's interface, and what there is for other engines.
