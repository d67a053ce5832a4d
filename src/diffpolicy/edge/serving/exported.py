"""`exported_choice`: a decision file of `diffpolicy export` says which server a request gets. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy._decision_input import DecisionInput
from diffpolicy._read import show_path
from diffpolicy._types import Bools, Floats
from diffpolicy.edge.dispatch.moment import Moment
from diffpolicy.edge.serving.exported_fleet import FLEET, FleetChoice
from diffpolicy.edge.serving.shown_speeds import ShownSpeeds, finite
from diffpolicy.errors import InputError
from diffpolicy.export import description
from diffpolicy.export.description import Described
from diffpolicy.export.onnx_session import open_session

KNOWN = ("observation", "latent", "noise", "uniform", "normal", "mask")
"""Inputs of a policy of observations, see `diffpolicy.export.Decision`."""


def exported_choice(path: str | Path, servers: int, seed: int = 0) -> FleetChoice | ObservationChoice:
    """What a decision file decides, whose description stands beside it.

    Args:
        path: of an ONNX file. servers: their number, which a policy of observations fits or does not.
        seed: of what the policy draws.

    Returns:
        For a file of a live fleet policy, which serves any number of servers, a `FleetChoice`; for any other an
        `ObservationChoice`.

    Raises:
        InputError: the files cannot be read, or the decision is none about one request on so many servers.
    """
    found = description.read(path)
    name = show_path(path)
    if found.format != "onnx":
        raise InputError(f"decision file {name} is of format {found.format}; serve runs ONNX files alone")
    inputs = {spec.name for spec in found.inputs}
    if inputs == FLEET:
        return FleetChoice(open_session(path, described=found), servers)
    if "candidates" in inputs:
        raise InputError(
            f"decision file {name} chooses among candidates that its caller draws; export the policy without them"
        )
    if "observation" not in inputs or not inputs <= set(KNOWN):
        raise InputError(
            f"decision file {name} takes {', '.join(spec.name for spec in found.inputs)}, which a dispatcher does not "
            "know; it serves exports of pretrained:live and of policies of one dispatcher before measured servers"
        )
    return ObservationChoice(_fitting(found, name, servers), open_session(path, described=found), servers, seed)


def _fitting(found: Described, name: str, servers: int) -> Described:
    """Refuses a policy of observations that are not a dispatcher's of so many servers."""
    observation = next(spec for spec in found.inputs if spec.name == "observation")
    action = found.outputs[0]
    lead, width = observation.shape[:-1], observation.shape[-1]
    logits = next((spec for spec in found.outputs if spec.name == "logits"), None)
    choices = None if logits is None else logits.shape[-1]
    if lead not in (("rows",), (1, "rows")):
        raise InputError(f"decision file {name} decides for {lead[0]} stations at once; export one of them, --agent 0")
    if action.dtype != "int64" or action.shape != lead:
        raise InputError(
            f"decision file {name} gives actions of {action.dtype} {list(action.shape)}, which is not a server"
        )
    if choices != servers or width != 2 + 2 * servers:
        raise InputError(
            f"decision file {name} chooses among {choices} from observations of {width} numbers, and {servers} workers "
            f"need {servers} and {2 + 2 * servers}: a policy of one dispatcher before as many measured servers"
        )
    return found


class ObservationChoice:
    """Shows a policy one request at a time, in the observation of an environment that has these servers.

    That is the input's size 0, the work, the queues and the expected times on all servers: work in seconds of the
    fastest server. A policy that names a server where the request may not go is overruled: it goes where it ends
    soonest. One that remembers begins with 1 / S.

    Args:
        described: inputs and outputs. session: that runs it. servers: S. seed: of what it draws.

    Raises:
        InputError: while it decides, there are not S servers any more.
    """

    def __init__(self, described: Described, session: Any, servers: int, seed: int) -> None:
        self._described, self._session, self._shown = described, session, ShownSpeeds(servers)
        self._servers, self._generator = servers, np.random.default_rng(seed)
        self._names = [spec.name for spec in described.outputs]
        self._latent: Floats | None = None

    def __call__(self, moment: Moment, allowed: Bools) -> int:
        """A server. Args: moment: whose first request is meant. allowed: servers that it may go to, bool `[S]`."""
        row = finite(moment.service_s[0])
        if len(row) != self._servers:
            raise InputError(f"the decision file is for {self._servers} workers, and there are {len(row)} now")
        self._shown.take(row)
        seen = np.concatenate([[0.0, row.min()], moment.starts_s * self._shown.speed, row])
        feed = {spec.name: self._value(spec, seen, allowed) for spec in self._described.inputs}
        outputs = dict(zip(self._names, self._session.run(None, feed), strict=True))
        self._latent = outputs.get("next_latent")
        chosen = int(outputs["action"].ravel()[0])
        if 0 <= chosen < len(allowed) and allowed[chosen]:
            return chosen
        return int(np.where(allowed, moment.service_s[0] + moment.starts_s, np.inf).argmin())

    def _value(self, spec: DecisionInput, seen: Floats, allowed: Bools) -> Any:
        """An input of one row. Args: seen: the observation."""
        shape = [1 if isinstance(size, str) else size for size in spec.shape]
        if spec.name == "observation":
            return seen.astype(np.float32).reshape(shape)
        if spec.name == "mask":
            return allowed.reshape(shape)
        if spec.name == "latent":
            return np.full(shape, 1 / shape[-1], np.float32) if self._latent is None else self._latent
        if spec.name == "uniform":
            return self._generator.random(shape, np.float32)
        return self._generator.standard_normal(shape, np.float32)
