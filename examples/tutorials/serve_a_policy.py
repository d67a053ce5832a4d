r"""
Put a policy in front of your servers
=====================================

You have a few GPU servers that make images, and clients that send them requests. Which server should get which
request?

In this lesson you put ``diffpolicy serve`` in front of three servers, and compare it with a rule that you may have
today, on the same arrivals. Then you try a rule with a mistake in it, and see it taken back: first automatically, then
by hand. You need no GPU: the servers are emulated, and twenty times as fast as real ones. You need the extra
``serving``.
"""

# %%
# Three servers
# -------------
#
# ``diffpolicy worker`` is a server. With ``emulate:`` it takes the times of a measured GPU and makes black
# pictures. In a terminal that is ``diffpolicy worker --model emulate:mlenergy-h100-sd3-medium@20 --port 8001``, one
# for each server. Here a script starts the same commands as processes; ``--json`` makes each say in a line where it
# listens.

import atexit
import json
import subprocess
import sys


def start(words):
    command = [sys.executable, "-m", "diffpolicy", *words.split(), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    atexit.register(process.kill)  # whatever happens to this script, none of them stays behind
    return process


def url(process):
    return json.loads(process.stdout.readline())["url"]


FLEET = ("mlenergy-h100-sd3-medium@20", "mlenergy-a100-sd3-medium@20", "mlenergy-a100-sd3-medium@10")
workers = [start(f"worker --model emulate:{server} --queue 200") for server in FLEET]
urls = ",".join(url(worker) for worker in workers)
print(len(workers), "servers")

# %%
# One is fast, one has about half its speed, and one half of that. Your own servers exist already: any that speak
# OpenAI's Images API, or ComfyUI (:doc:`/serving/serve`).
#
# The service
# -----------
#
# ``serve`` is given their addresses. Nobody tells it how fast they are: it learns that from their answers.
# ``--binding free`` lets a request wait at the service until a server is free, instead of sending it on at once.

serve = start(f"serve --workers {urls} --binding free --order cost-minus-age:age=0.5")
service = url(serve)

# %%
# Clients talk to it as they talked to one server. Any HTTP client works; OpenAI's own needs
# ``base_url=f"{service}/v1"``.

import httpx

wish = {"prompt": "a lighthouse", "size": "1024x1024", "num_inference_steps": 25}
answer = httpx.post(f"{service}/v1/images/generations", json=wish, timeout=60)
print(answer.status_code, answer.headers["content-type"], len(answer.json()["data"]), "image")

# %%
# What does it gain?
# ------------------
#
# A copy of the three servers gets the other rule: ``least-work`` sends each request at once to the server with the
# shortest queue in seconds. Both get the same requests at the same moments, from a load like that of
# ``diffpolicy bench-service``: Poisson arrivals of four sizes, a :term:`load` of .85. The first 20 answers do not
# count, since both rules learn from them how fast the servers are.

import asyncio

from diffpolicy.edge.serving.load import plan, send

others = [start(f"worker --model emulate:{server} --queue 200") for server in FLEET]
beside = start(f"serve --workers {','.join(url(worker) for worker in others)} --policy least-work")
asked = plan(80, rate=14.0, seed=3)


async def both():
    return await asyncio.gather(send(service, asked), send(old, asked))


old = url(beside)
held, sent = ([outcome.delay_s for outcome in report.outcomes[20:]] for report in asyncio.run(both()))
for name, delays in (("held", held), ("least work", sent)):
    print(
        f"{name:10}  mean {1000 * sum(delays) / len(delays):4.0f} ms   "
        f"longest {1000 * max(delays):5.0f} ms"
    )

# %%
# All delays, sorted. The further left a line, the better:

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for name, delays, colour, line in (
    ("held", held, "#d55e00", "-"),
    ("least work", sent, "#000000", "--"),
):
    share = [100 * (k + 1) / len(delays) for k in range(len(delays))]
    axes.plot(sorted(delays), share, color=colour, linestyle=line, label=name)
axes.set(xscale="log", xlabel="delay of a request, s", ylabel="requests that wait no longer, %")
axes.grid(alpha=0.3)
axes.legend(frameon=False)

# %%
# So few requests show what happens but not how much: :doc:`/concepts/late_binding` has five seeds of 200,000.
#
# What it tells
# -------------
#
# Open the service's address in a browser: the page shows the servers, who waits, and every decision. ``/metrics`` is
# for Prometheus. Here it says how many requests each server got. It also says how long a server stood still because
# its next request had to be sent first, as a share of the service time:

text = httpx.get(f"{service}/metrics").text
found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
for name in urls.replace("http://", "").split(","):
    label = f'{{worker="{name}"}}'
    count = float(found[f"diffpolicy_service_seconds_count{label}"])
    dead = float(found[f"diffpolicy_dead_time_seconds_sum{label}"])
    dead /= float(found[f"diffpolicy_service_seconds_sum{label}"])
    print(f"{name}: {count:.0f} requests, dead time {dead:.1%} of the service")

# %%
# That is :term:`dead time`. With servers that are twenty times too fast, a call's milliseconds weigh twenty times too
# much, and more if the machine that built this page was busy. Above some per cent holding gains nothing, as the
# picture in :doc:`hold_or_bind` shows.
#
# Try before you trust
# --------------------
#
# Now write your own rule, in a file ``mine_router.py``: a function of a :py:class:`~diffpolicy.edge.dispatch.Moment`
# that says what each server costs. The smallest cost wins, and this one has a sign wrong:
#
# .. literalinclude:: ../../examples/tutorials/mine_router.py
#    :pyobject: fewest_seconds
#
# ``--share`` lets it decide on a part of the requests, beside the rule that you had. In your service that is
# ``--share
# 0.1``; here it is half, so that the trial ends soon:

for process in (serve, beside, *others):
    process.terminate()
trial = start(
    f"serve --workers {urls} --policy mine_router:fewest_seconds --share 0.5 --beside least-outstanding"
)
small = wish | {"size": "512x512", "num_inference_steps": 10}


async def ask(url):
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:

        async def one(k):
            await asyncio.sleep(k / 60)
            return await client.post(f"{url}/v1/images/generations", json=small)

        return await asyncio.gather(*(one(k) for k in range(150)))


tried = url(trial)
answers = asyncio.run(ask(tried))
print({answer.status_code for answer in answers})

# %%
# All clients got their images. And the trial? The service compares what both rules made of their requests. Once it
# has 50 of each, and the new rule is worse by more than chance allows, that one decides no more. It says so in a
# metric, and on stderr:

text = httpx.get(f"{tried}/metrics").text
print(*(line for line in text.splitlines() if line.startswith("diffpolicy_fallbacks_total")), sep="\n")
trial.terminate()
print(*(line for line in trial.communicate()[1].splitlines() if "rolled-back" in line), sep="\n")

# %%
# * A rule that raises an error, is late, or names an impossible server loses no request either: the request goes where
#   it ends soonest, and ``fallbacks_total`` says why.
# * ``--shadow`` asks the new rule and follows the old one. Nobody waits for the new one; ``-v`` writes what it would
#   have done.
# * If one of the two rules holds requests, they take turns of five minutes, since a rule that holds finds no free
#   server beside one that does not. At least five turns of each pass before the trial can end.
#
# Going back
# ----------
#
# By hand there are two ways:
#
# * **Keep the service, name the old rule.** End it, and start it with ``--policy least-outstanding`` (what most
#   routers do) or ``round-robin``. On SIGTERM it ends what it has, for up to ``--grace`` seconds, and its status is
#   143.
# * **Without the service.** Point the clients at the servers again. They were not changed.

for process in workers:
    process.terminate()
print([process.wait() for process in (serve, beside, *others, trial, *workers)])

# %%
# The same as commands
# --------------------
#
# .. code-block:: console
#
#     $ diffpolicy serve --workers http://10.0.0.7:8000,http://10.0.0.8:8000 --binding free --log requests.csv
#     $ diffpolicy bench-service http://127.0.0.1:8000 --requests 500 --rate 2.5
#     $ diffpolicy serve --workers workers.json --policy mine_router:fewest_seconds --share 0.1
#
# Next: :doc:`hold_or_bind` reads the log that ``--log`` writes. :doc:`/serving/serve` has all options, what clients
# are told, and who gets in.
