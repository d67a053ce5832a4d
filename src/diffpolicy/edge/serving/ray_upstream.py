"""`RayUpstream`: a deployment of Ray Serve as a worker of the dispatcher: the composed form."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.upstream import Answer, Chunk, Health, UpstreamError


class RayUpstream:
    """Calls a deployment handle with OpenAI bodies.

    One deployment a class of server, and the policy with its held queue in the ingress: this needs nothing of Ray that
    is alpha, and knows every request of the fleet. The deployment takes a body, a dictionary, and returns the answer's,
    or bytes.

    Args:
        handle: of the deployment. slots: requests that it works on at once; None: 1. models: that it serves.

    Example:
        >>> class Handle:
        ...     def remote(self, body):
        ...         async def answer():
        ...             return {"data": []}
        ...         return answer()
        >>> asyncio.run(RayUpstream(Handle()).call(ImageRequest.parse({"prompt": "a cat"}, "r"), timeout_s=9)).body
        b'{"data": []}'
    """

    def __init__(self, handle: Any, *, slots: int | None = None, models: tuple[str, ...] | None = None) -> None:
        self._handle, self._slots, self._models = handle, slots, models

    async def call(self, request: ImageRequest, *, timeout_s: float, chunk: Chunk | None = None) -> Answer:
        """Sends a request and waits for its answer; see `Upstream`.

        Args:
            request: what is asked for. timeout_s: until it is there. chunk: not used: a deployment sends no stream, and
                who asks for one gets the images at its end.

        Returns:
            The answer.

        Raises:
            UpstreamError: the deployment raised, or was too late.
        """
        response = self._handle.remote(dict(request.body))
        try:
            made = await asyncio.wait_for(_wait(response), timeout_s)
        except (TimeoutError, asyncio.TimeoutError):
            _cancel(response)
            raise UpstreamError("did not answer in time", reached=True, late=True) from None
        except asyncio.CancelledError:
            _cancel(response)
            raise
        except Exception as error:  # whatever the deployment raises comes through its handle
            raise UpstreamError(f"failed: {type(error).__name__}", reached=True) from None
        body = made if isinstance(made, bytes) else json.dumps(made).encode()
        return Answer(200, {"content-type": "application/json"}, body)

    async def health(self) -> Health:
        """Ray restarts replicas by itself: the deployment is there."""
        return Health(True, models=self._models, slots=self._slots)

    async def aclose(self) -> None:
        """Nothing to end."""


async def _wait(response: Any) -> Any:
    """A response of a handle can be awaited, and is no coroutine."""
    return await response


def _cancel(response: Any) -> None:
    """Stops the work of a response, where it can be."""
    cancel = getattr(response, "cancel", None)
    if cancel is not None:
        cancel()
