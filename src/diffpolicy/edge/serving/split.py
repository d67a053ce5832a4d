"""A request of several images as requests of one, and their answers as one answer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diffpolicy.edge.serving import ending
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.image_request import ImageRequest
from diffpolicy.edge.serving.room import Share
from diffpolicy.edge.serving.told_images import created_s, images_of
from diffpolicy.edge.serving.upstream import Answer
from diffpolicy.edge.serving.work import Work

if TYPE_CHECKING:
    from diffpolicy.edge.serving.service import Service

logger = logging.getLogger("diffpolicy.serving")
AT_ONCE = 2**18
"""Bytes of answers up to which they are put together in the event loop; more would keep it waiting for milliseconds."""
DEEPEST = 8
"""Objects within each other in `usage` that are summed."""
LARGEST = 2.0**53
"""Number in `usage` that is summed: up to it JSON's are whole everywhere, and no sum overflows."""


def splits(service: Service, request: ImageRequest) -> bool:
    """Whether a request is sent image by image.

    Not a stream, which says itself how its images come, and not where a worker makes several at once, faster than one
    by one.

    Args:
        service: with its workers. request: any.
    """
    if not service.settings.split or request.images < 2 or request.stream:
        return False
    able = [server for server in service.fleet.servers if not server.removed and server.serves(request.model)]
    return len(able) > 1 and all(server.slots == 1 for server in able)


def parts_of(request: ImageRequest) -> tuple[ImageRequest, ...]:
    """Its images, each as a request of its own; image i has the seed of the request plus i, where that tells one.

    Args:
        request: of several images.

    Example:
        >>> request = ImageRequest.parse({"prompt": "a cat", "n": 2, "seed": 7}, "r1")
        >>> [(part.number, part.images, part.body["seed"]) for part in parts_of(request)]
        [('r1.1', 1, 7), ('r1.2', 1, 8)]
    """
    told = request.body.get("seed")
    seed = told if isinstance(told, int) and not isinstance(told, bool) else None
    return tuple(
        replace(
            request,
            number=f"{request.number}.{i + 1}",
            body={**request.body, "n": 1, **({} if seed is None else {"seed": seed + i})},
            images=1,
            repeat_key=None,
        )
        for i in range(request.images)
    )


def joined(answers: Sequence[Answer]) -> Answer:
    """One answer with the images of all, in order; what else is told is of the first, and usage is summed.

    Args:
        answers: of status 200, at least one.

    Raises:
        ApiError: one holds no images.

    Example:
        >>> one, two = (Answer(200, {}, b'{"created": %d, "data": [{"b64_json": "%d"}]}' % (k, k)) for k in (1, 2))
        >>> joined([one, two]).body
        b'{"created": 1, "data": [{"b64_json": "1"}, {"b64_json": "2"}]}'
    """
    told = [_images(answer) for answer in answers]
    images = [image for each in told for image in images_of(each)]
    body = {**told[0], "created": created_s(told[0]), "data": images}
    usages = [each.get("usage") for each in told]
    if all(isinstance(usage, dict) for usage in usages):
        body["usage"] = _sum(usages)
    seconds = [answer.service_s for answer in answers if answer.service_s is not None]
    return Answer(200, answers[0].headers, json.dumps(body).encode(), sum(seconds) if seconds else None)


def _images(answer: Answer) -> Mapping[str, Any]:
    """The object that an answer holds."""
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or not images_of(said):
        raise ApiError(502, "a worker's answer holds no images", code="of_worker")
    return said


def _sum(usages: Sequence[Any], depth: int = 0) -> Any:
    """Numbers summed, and objects field by field; what is neither, or beyond measure, is as the first has it."""
    if depth < DEEPEST and all(isinstance(usage, dict) for usage in usages):
        return {key: _sum([usage[key] for usage in usages if key in usage], depth + 1) for key in usages[0]}
    return sum(usages) if all(map(_countable, usages)) else usages[0]


def _countable(usage: Any) -> bool:
    """Whether it is a number that can be summed."""
    return isinstance(usage, (int, float)) and not isinstance(usage, bool) and abs(usage) <= LARGEST


async def gather(service: Service, whole: Work) -> None:
    """Waits for the parts of a request and answers it, whatever comes; one that ends without an image ends all.

    Args:
        service: the dispatcher. whole: a work with parts.
    """
    try:
        await _gathered(service, whole)
    except Exception as error:  # of what workers say: nobody else will ever answer the client
        logger.error("the images of a request could not be put together: %s", type(error).__name__)
    finally:
        whole.fail(ApiError(502, "the workers' answers cannot be put together", code="of_worker", again=False))
        try:
            for part in whole.parts:
                ending.dropped(service, part)
        finally:
            ending.joined(service, whole)


async def _gathered(service: Service, whole: Work) -> None:
    """Does what `gather` says, as far as workers answer what can be read."""
    waited = {part.result for part in whole.parts}
    with service.room.share() as share:
        await _ended(whole, waited, share)
        if not whole.result.done():
            await _answer(whole, [part.result.result() for part in whole.parts], service.settings.limits.response)


async def _ended(whole: Work, waited: set[asyncio.Future[Answer]], share: Share) -> None:
    """Waits until all parts have ended, or one of them without an image. Args: share: of what is held."""
    while waited and not whole.result.done():
        ended, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        for result in ended:
            error = result.exception()
            if error is not None:
                whole.fail(error if isinstance(error, ApiError) else ApiError(500, "a part failed", code="failed"))
                continue
            share.add(len(result.result().body))
            if result.result().status != 200 and not whole.result.done():
                whole.result.set_result(result.result())


async def _answer(whole: Work, answers: Sequence[Answer], most: int) -> None:
    """Gives a request its answer. Args: most: bytes of it."""
    size = sum(len(answer.body) for answer in answers)
    try:
        if size > most:
            raise ApiError(502, f"the images have more than {most / 2**20:.3g} MiB", code="of_worker")
        answer = joined(answers) if size <= AT_ONCE else await asyncio.to_thread(joined, answers)
    except ApiError as error:
        whole.fail(error)
        return
    if not whole.result.done():  # its client may have gone meanwhile
        whole.result.set_result(answer)
