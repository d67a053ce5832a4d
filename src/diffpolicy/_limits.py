"""The greatest counts that are taken: far beyond any use, and near what would fill a machine's memory or last for ever.

A count is compared with its bound before anything is made of it.
"""

from __future__ import annotations

LEAST, MOST = 1e-12, 1e12
"""Of a slot's length and a server's rates, in whatever units: beyond them a delay would be no number any more."""
SLOWEST, FASTEST = 1e-6, 1e6
"""Of a server's speed in relation to others."""
SEATS = 1024
"""Requests that a server works on at once."""
SLOTS = 10**7
"""Of an episode."""
TASKS = 10**5
"""Of a station in a slot."""
SERVERS = 10**5
"""Of a fleet; of stations, too."""
STEPS = 10**6
"""Of denoising, of one request."""
CHAIN = 10**4
"""Steps of a policy's noise schedule."""
TRAINING = 10**9
"""Episodes of a training, and updates between two of anything."""
EVALUATION = 10**6
"""Episodes of an evaluation."""
ENVIRONMENTS = 10**5
"""Side by side."""
PROCESSES = 1024
"""Side by side, and threads of one."""
MINUTES = 60 * 24 * 366
"""Of a comparison: a year."""
SEEDS = 10**4
"""Training seeds of a comparison."""
CALLS = 10**6
"""Timed calls of a point of a profile."""
CELLS = 2**31
"""Numbers that an environment shows in a step: environments x stations x tasks x (servers + 2)."""
PLAYED = 10**10
"""Tasks of an evaluation: episodes x slots x stations x tasks."""
OUTAGES = 10**5
"""Of one server in one episode."""
DRAWN = 10**5
"""Actions of a state that are weighed against each other, in a decision or an update."""
PARAMETERS = 10**8
"""Of one layer of all agents."""
REPLAYED = 2**33
"""Numbers in a replay: agents x capacity x width."""
