"""`ComfyUpstream`: a worker that is ComfyUI, with a workflow into which requests are filled."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from diffpolicy.edge.hardware.adapters.api_key import read_api_key
from diffpolicy.edge.hardware.adapters.server_url import VERSION, ServerUrl
from diffpolicy.edge.hardware.optional import need
from diffpolicy.edge.serving import comfy_history, health_report
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.comfy_queue import MOST_BYTES, ComfyQueue
from diffpolicy.edge.serving.comfy_workflow import Workflow
from diffpolicy.edge.serving.http_calls import HttpCalls
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.limits import Limits
from diffpolicy.edge.serving.room import Room
from diffpolicy.edge.serving.told_images import answer_body
from diffpolicy.edge.serving.upstream import Answer, Chunk, Health, UpstreamError
from diffpolicy.edge.serving.worker_spec import WorkerSpec
from diffpolicy.errors import InputError

ASK_S = 10.0
"""Longest time of a call that is no generation."""
SOONEST_S, LATEST_S, SHARE = 0.05, 0.5, 0.02
"""Between two looks at whether it is done: a share of the time so far, within bounds."""
LOST = 3
"""Looks in a row that find a request neither queued nor done before it counts as lost, as after a restart; or that fail
before the server counts as gone."""
AGAIN_S = (0.5, 2.0)
"""After which a request whose number was not told yet is taken out once more: it may have come in since."""
CONNECTIONS = 64


class ComfyUpstream:
    """ComfyUI behind a URL: `/prompt`, `/queue`, `/history`, `/view`, `/interrupt`.

    What a request leaves open is as the workflow has it; so is everything but prompt, size, steps, number and seed. It
    has no streams: a request for one gets its images in one piece.

    Args:
        spec: where it is, with its workflow. limits: the longest answer.
        room: where the bytes of answers count while they come.
        workflow: the one that the file holds; None: it is read now, which waits for a disk.
        transport: takes the place of the network, in tests; one of httpx.

    Raises:
        InputError: there is no workflow, it lacks a node, or the key or httpx is not there.

    Example:
        >>> import json, pathlib
        >>> sampler = {"class_type": "KSampler", "inputs": {"seed": 0, "steps": 20, "positive": ["6", 0]}}
        >>> text = {"class_type": "CLIPTextEncode", "inputs": {"text": ""}}
        >>> _ = pathlib.Path("sd3.json").write_text(json.dumps({"3": sampler, "6": text}))
        >>> worker = ComfyUpstream(WorkerSpec("http://127.0.0.1:8188", kind="comfyui", workflow="sd3.json"))
        >>> worker.workflow.steps
        20
    """

    def __init__(
        self,
        spec: WorkerSpec,
        limits: Limits | None = None,
        room: Room | None = None,
        *,
        workflow: Workflow | None = None,
        transport: Any = None,
    ) -> None:
        self.spec, self._limits, self._room = spec, limits or Limits(), Room() if room is None else room
        if spec.workflow is None:
            raise InputError(f"worker {spec.name} is ComfyUI, so it needs a workflow in the workers file")
        self.workflow = workflow or Workflow.read(spec.workflow, dict(spec.nodes))
        address = ServerUrl.parse(spec.url)
        key = None if spec.api_key_env is None else read_api_key(spec.api_key_env)
        self._root = VERSION.sub("", address.endpoint.removesuffix("/images/generations"))
        self._anyio = need("anyio", "serving")
        self._client_id = uuid.uuid4().hex
        self._ends: set[asyncio.Task[None]] = set()
        self._queue = ComfyQueue(lambda: self._ask("GET", "/queue", ASK_S, MOST_BYTES))
        self._calls = HttpCalls.to(address, key, CONNECTIONS, transport=transport, room=self._room)

    async def call(self, request: ImageRequest, *, timeout_s: float, chunk: Chunk | None = None) -> Answer:
        """Queues a request and waits for its images; see `Upstream`. One that is given up is taken out or interrupted.

        Args:
            request: what is asked for. timeout_s: until the last byte. chunk: not used.

        Returns:
            Status 200 with the images; 400 or 500 with ComfyUI's reason.

        Raises:
            UpstreamError: there is no answer.
        """
        try:
            if request.files:
                raise ApiError(400, "a workflow of ComfyUI edits no images", code="no_edits")
            graph = self.workflow.filled(request, secrets.randbelow(2**32))
        except ApiError as error:
            return _failed(error)
        names = [str(uuid.uuid4())]
        try:
            with self._anyio.fail_after(timeout_s):
                return await self._done(names, graph, request)
        except TimeoutError:
            self._give_up(names)
            raise UpstreamError(f"did not answer in time ({timeout_s:.3g} s)", reached=True, late=True) from None
        except (UpstreamError, asyncio.CancelledError) as error:
            if not isinstance(error, UpstreamError) or error.reached:  # otherwise nothing was queued
                self._give_up(names)
            raise

    async def health(self) -> Health:
        """Whether it answers, its model, and what runs and waits.

        Returns:
            What is known.

        Raises:
            UpstreamError: nothing.
        """
        look = await self._queue.look(time.monotonic())
        return Health(
            True,
            models=self.workflow.models or None,
            running=len(look.running),
            waiting=len(look.waiting),
            slots=1,
            width=self.workflow.width,
            height=self.workflow.height,
            steps=self.workflow.steps,
        )

    async def aclose(self) -> None:
        """Ends what is given up, and its connections."""
        if self._ends:
            _, late = await asyncio.wait(self._ends, timeout=ASK_S)
            for task in late:
                task.cancel()
        await self._queue.aclose()
        await self._calls.aclose()

    async def _done(self, names: list[str], graph: Mapping[str, Any], request: ImageRequest) -> Answer:
        """Queues a graph, looks until it is done, and fetches the images.

        Args:
            names: what we call the request; releases before the middle of 2025 give it a name of their own, which is
                added. graph: with what is asked for. request: asks for it.
        """
        body = {"prompt": graph, "client_id": self._client_id, "prompt_id": names[0]}
        queued = await self._ask("POST", "/prompt", ASK_S, json=body)
        told = health_report.as_object(queued.body)
        if queued.status >= 400:
            status = 400 if queued.status < 500 else 500
            return _failed(
                ApiError(status, f"ComfyUI refuses the workflow: {comfy_history.reason(told)}", code="of_worker")
            )
        own = told.get("prompt_id")
        if queued.status != 200 or not isinstance(own, str):
            raise UpstreamError("queued a workflow without giving its id", reached=True)
        names.append(own)
        found = await self._found(own, time.monotonic())
        told_status = found.get("status")
        how: Mapping[str, Any] = told_status if isinstance(told_status, dict) else {}
        messages = comfy_history.messages(how)
        if "execution_interrupted" in messages:
            raise UpstreamError("was told by another client to interrupt the request", reached=True)
        if how.get("status_str") == "error":
            wrong = messages.get("execution_error", {})
            # what the exception says may hold a prompt
            where, what = (str(wrong.get(key) or "?")[:100] for key in ("node_type", "exception_type"))
            return _failed(ApiError(500, f"ComfyUI failed in node {where}: {what}", code="of_worker"))
        return await self._answer(found, request, comfy_history.seconds(messages))

    async def _found(self, number: str, queued_s: float) -> Mapping[str, Any]:
        """What there is of a request, once it is done. Args: number: of it. queued_s: since when it was there."""
        since_s, runs, missed = queued_s, False, 0
        while True:
            pause_s = min(max(SHARE * (time.monotonic() - since_s), SOONEST_S), LATEST_S)
            await asyncio.sleep(pause_s)
            try:
                look = await self._queue.look(max(time.monotonic() - pause_s / 4, queued_s))
                if number in look.waiting:
                    missed = 0
                    continue
                if number in look.running:
                    since_s, runs, missed = since_s if runs else look.begun_s, True, 0
                    continue
                # it moves from the queue to what runs, and from there to what is done, at once
                found = await self._history(number)
            except UpstreamError:
                missed += 1
                if missed >= LOST:
                    raise
                continue
            if found is not None:
                return found
            missed += 1
            if missed >= LOST:
                raise UpstreamError("has lost the request, as after a restart", reached=True)

    async def _answer(self, found: Mapping[str, Any], request: ImageRequest, service_s: float | None) -> Answer:
        """The images that a history lists."""
        files = comfy_history.files(found.get("outputs"))
        left, images = self._limits.response, []
        with self._room.share() as share:
            for file in files[: self._limits.images]:
                seen = await self._ask("GET", "/view", None, params=file, most_bytes=left)
                if seen.status != 200:
                    raise UpstreamError(f"made an image and answers {seen.status} for it", reached=True)
                left -= len(seen.body)
                images.append(base64.b64encode(seen.body))
                share.add(len(images[-1]))
        if len(images) < request.images:
            raise UpstreamError(f"made {len(images)} images instead of {request.images}", reached=True)
        kind = PurePosixPath(files[0]["filename"]).suffix.lstrip(".") or "png"
        body = answer_body({"created": int(time.time()), "output_format": kind}, images)
        return Answer(200, {"content-type": "application/json"}, body, service_s)

    async def _history(self, number: str) -> Mapping[str, Any] | None:
        """What it has of a request that is done; None before."""
        answer = await self._ask("GET", f"/history/{number}", ASK_S, most_bytes=health_report.MOST_BYTES)
        found = health_report.as_object(answer.body).get(number)
        return found if isinstance(found, dict) else None

    async def _ask(
        self,
        method: str,
        path: str,
        timeout_s: float | None,
        most_bytes: int = health_report.MOST_BYTES,
        **content: Any,
    ) -> Answer:
        """One call. Args: timeout_s: None: the whole request's alone."""
        bound_s = float("inf") if timeout_s is None else timeout_s
        try:
            answer = await self._calls.fetch(
                method, self._root + path, timeout_s=bound_s, most_bytes=most_bytes, **content
            )
        except UpstreamError as error:
            # of a request that was queued before, the work may have begun
            reached = error.reached or path != "/prompt"
            # nor is the whole request late where one call of it was
            raise UpstreamError(str(error), reached=reached, gone=error.gone) from None
        if answer.status in (401, 403) or 300 <= answer.status < 400:
            raise UpstreamError(f"answers with status {answer.status}", reached=path != "/prompt")
        return answer

    def _give_up(self, names: list[str]) -> None:
        """Takes a request out, beside whatever is being cancelled. Args: names: of it."""
        task = asyncio.ensure_future(self._end(names))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def _end(self, names: list[str]) -> None:
        """Takes a request out of the queue, or interrupts it: nothing else, since the server may not be ours alone."""
        with suppress(UpstreamError):
            for pause_s in (0.0, *(AGAIN_S if len(names) == 1 else ())):
                await asyncio.sleep(pause_s)
                await self._ask("POST", "/queue", ASK_S, json={"delete": names})
                look = await self._queue.look(time.monotonic())
                for number in {*names} & {*look.running}:
                    # older releases interrupt what runs, whatever the number; newer ones heed it
                    await self._ask("POST", "/interrupt", ASK_S, json={"prompt_id": number})


def _failed(error: ApiError) -> Answer:
    return Answer(error.status, {"content-type": "application/json"}, json.dumps(error.body()).encode())
