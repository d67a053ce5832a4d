"""`HeadFirst`: an answer whose head says that the device is free, while its pictures are still being written."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from diffpolicy.edge.serving.api.bodies import ClientGoneError
from diffpolicy.edge.serving.api.paced import send_end, send_pieces
from diffpolicy.edge.serving.api.waiting import until_answered
from diffpolicy.edge.serving.api_error import ApiError
from diffpolicy.edge.serving.hanging_up import hang_up
from diffpolicy.edge.serving.room import Share
from diffpolicy.edge.serving.within import within
from diffpolicy.edge.serving.worker.work import Claim


class HeadFirst(Response):
    """Sends status 200 and the headers at once, and the body when it is there, to clients that ask for that.

    A dispatcher that holds requests sends the next one by then. Where no body comes after all the connection is
    dropped, since the status cannot be taken back.

    Args:
        claim: of a request whose images are made. head: its headers. stall_s: see `ApiSettings`.
        share: of what is held. until: is closed when all is sent, however that ends.
    """

    def __init__(self, claim: Claim, head: Mapping[str, str], stall_s: float, share: Share, until: ExitStack) -> None:
        self.claim, self.stall_s, self.share, self.until = claim, stall_s, share, until
        self.status_code, self.background, self.body = 200, None, b""
        self.raw_headers = [(name.encode(), value.encode()) for name, value in head.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.until:
            try:
                async with within(self.stall_s):
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                answer = await until_answered(self.claim, receive)
                self.share.add(len(answer.body))
                await send_pieces(answer.body, send, self.stall_s)
                await send_end(scope, send, self.stall_s)
            except (ApiError, ClientGoneError, TimeoutError):
                hang_up(scope)
