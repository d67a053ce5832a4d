"""The physics of LAD-TS once more, in plain loops and floats: what the tensors must agree with."""

from dataclasses import dataclass


@dataclass
class Task:
    """Args: step: number of its slot. home: server at its origin or None. d, r: Mbit. w: Gcycles."""

    step: int
    home: int | None
    d: float
    r: float
    w: float


def delay(task, server, backlog, f, v):
    """Delay of a task on a server with so much work before it."""
    transfer = 0.0 if server == task.home else task.d / v[server]
    return transfer + backlog / f[server] + task.w / f[server] + task.r / v[server]


def simulate(tasks, f, v, durations, decide):
    """Servers, delays and the queues at the end. Args: durations: of each step. decide: (k, costs) -> server."""
    queue = [0.0] * len(f)
    servers, delays = [], []
    for step, duration in enumerate(durations):
        for k, task in enumerate(tasks):
            if task.step != step:
                continue
            costs = [delay(task, a, queue[a], f, v) for a in range(len(f))]
            server = decide(k, costs)
            servers.append(server)
            delays.append(costs[server])
            queue[server] += task.w
        for a in range(len(f)):
            queue[a] = max(queue[a] - f[a] * duration, 0.0)
    return servers, delays, queue


def greedy(k, costs):
    """The smallest cost; of equal ones the lowest index."""
    return min(range(len(costs)), key=lambda a: (costs[a], a))
