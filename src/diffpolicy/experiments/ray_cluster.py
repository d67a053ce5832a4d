"""`RayCluster`: jobs as tasks of Ray."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from diffpolicy import _limits
from diffpolicy._read import one_line
from diffpolicy._validate import show
from diffpolicy.errors import InputError, WorkError
from diffpolicy.experiments.parcels import Parcel, Reply, do

SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Nothing is reported to Ray's makers; and Ray is not to hide devices from tasks that ask for none, as it will not."""
ANSWERS_S = 5.0
"""Within which somebody at a cluster's address must take a connection."""


class RayCluster:
    """A cluster of Ray: each job is a task with one processor, which Ray does not try again by itself.

    Args:
        slots: processors of the cluster.
    """

    def __init__(self, slots: int) -> None:
        import ray

        self._ray, self.slots = ray, slots
        self._do = ray.remote(num_cpus=1, max_retries=0)(do)

    @classmethod
    @contextmanager
    def connected(cls, address: str | None) -> Iterator[RayCluster]:
        """A cluster, for as long as it is used.

        Args:
            address: of `ray.init`; None: the one that Ray finds (`RAY_ADDRESS`, or one that was started on this
                machine), otherwise a new one on this machine, which ends with this process.

        Raises:
            InputError: Ray is not installed, or cannot connect.
        """
        if importlib.util.find_spec("ray") is None:
            raise InputError("--cluster ray needs the extra 'ray': pip install -c constraints.txt '.[ray]'")
        _check_answers(address)
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        import ray

        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address, include_dashboard=False if address is None else None, log_to_driver=False, logging_level=40
            )
        except Exception as error:  # of many kinds
            where = "on this machine" if address is None else f"at {show(address)}"
            raise InputError(f"Ray cannot connect to a cluster {where}: {one_line(str(error), 300)}") from None
        finally:
            signal.signal(signal.SIGTERM, before)  # Ray's own would end this process before its tasks
        try:
            slots = max(1, min(int(ray.cluster_resources().get("CPU", 1)), _limits.PROCESSES))
            yield cls(slots)
        finally:
            ray.shutdown()

    def begin(self, parcel: Parcel) -> Any:
        """See `Cluster`. Args: parcel: what is to be done."""
        return self._do.remote(parcel)

    def ended(self, tasks: Sequence[Any], timeout_s: float) -> list[Any]:
        """See `Cluster`. Args: tasks: that run. timeout_s: for which it waits."""
        ready, _ = self._ray.wait(list(tasks), num_returns=1, timeout=timeout_s)
        return list(ready)

    def result(self, task: Any) -> Reply:
        """See `Cluster`. Args: task: that has ended."""
        try:
            reply: Reply = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            raise WorkError(f"its task died: {told(error)}") from None
        return reply

    def stop(self, task: Any, at_once: bool) -> None:
        """See `Cluster`. Args: task: that runs. at_once: kill it."""
        self._ray.cancel(task, force=at_once)


def _check_answers(address: str | None) -> None:
    """Refuses an address where nobody listens, which Ray itself tries for minutes. Args: address: of `ray.init`."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # a word that Ray knows, such as auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWERS_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(f"there is no cluster of Ray at {show(address)}: {one_line(str(error), 300)}") from None


def told(error: Exception) -> str:
    """What an error of Ray says, in a line: its kind, and the beginning of its text without the traceback in it."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return one_line(": ".join([type(cause).__name__, *lines[:1]]), 300)
