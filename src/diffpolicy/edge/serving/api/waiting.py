"""Waiting for a ticket's answer while its client is still there."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive

from diffpolicy.edge.serving.api.bodies import ClientGoneError
from diffpolicy.edge.serving.api.served import Ticket
from diffpolicy.edge.serving.upstream import Answer


async def disconnected(receive: Receive) -> None:
    """Ends when the client goes away. Args: receive: of a request whose body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def until_any(ticket: Ticket, receive: Receive, *futures: asyncio.Future[Any]) -> None:
    """Waits for the first of some futures, which are left to whoever waits for them too; otherwise as `until_answered`.

    It needs no task for what comes, as a device may stand still until its client has been told.

    Args:
        ticket, receive: of `until_answered`. futures: of what becomes of the request.

    Raises:
        ClientGoneError: nobody waits any more.
    """
    gone = asyncio.ensure_future(disconnected(receive))
    come = False
    try:
        await asyncio.wait({*futures, gone}, return_when=asyncio.FIRST_COMPLETED)
        come = any(future.done() for future in futures)
        if not come:
            raise ClientGoneError
    finally:
        if not come:
            ticket.cancel()
        gone.cancel()


async def until_answered(ticket: Ticket, receive: Receive) -> Answer:
    """The answer; when the client goes away before, or the server ends, the request is cancelled.

    Args:
        ticket: of a request that was taken. receive: of its client.

    Raises:
        ApiError: it failed for good. ClientGoneError: nobody waits any more.
    """
    answer = asyncio.ensure_future(ticket.answer())
    gone = asyncio.ensure_future(disconnected(receive))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientGoneError
        return answer.result()
    finally:
        give_up(ticket, answer, gone)


def give_up(ticket: Ticket, answer: asyncio.Future[Any], *others: asyncio.Future[Any]) -> None:
    """Cancels a request that has no answer yet, and what waited for it. Args: others: tasks beside it."""
    if not answer.done():
        ticket.cancel()
    for task in (answer, *others):
        task.cancel()
    if answer.done() and not answer.cancelled():
        answer.exception()  # has been told, or nobody is there to be told
