"""`HttpAdapter`: a server that speaks OpenAI's `POST /v1/images/generations`."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from diffpolicy import _validate as check
from diffpolicy.edge.hardware.adapters.api_key import read_api_key
from diffpolicy.edge.hardware.adapters.bounded_client import (
    Answer,
    BoundedClient,
    CallError,
    DroppedError,
    UnreachableError,
)
from diffpolicy.edge.hardware.adapters.image_answer import AnswerError, check_images, error_reason, most_bytes
from diffpolicy.edge.hardware.adapters.server_url import ServerUrl
from diffpolicy.edge.hardware.optional import need
from diffpolicy.edge.hardware.schema.records import ColdStart, ModelInfo, ServerInfo, Software
from diffpolicy.edge.hardware.server_adapter import CallRefusedError, Description, GenerateRequest, GenerateTiming
from diffpolicy.errors import InputError

BUSY = (429, 503)
"""A server that answers so may take the call later."""
LATER = (*BUSY, 408, 425, 500, 502, 504)
"""Answers after which a call is sent once more at least."""
NEVER = (401, 403, 404, 405)
"""Answers that every other call would get too."""
MOST_TRIES = 4
MOST_WAIT_S = 120.0
"""Of all waits of a call, whatever the server asks for."""
FIRST_WAIT_S = 0.5
"""Where the server names no time; doubled after each try."""


class HttpAdapter:
    """Calls a server behind a URL, which tells only how long a whole call takes, the network included.

    The body holds `prompt`, `n`, `size`, `response_format` (`b64_json`) and `model`, and the extensions
    `num_inference_steps` and `seed`; a server that ignores the steps shows it as a step time of nothing, and the fit
    says so. A call counts only if its answer holds as many whole images of the size as were asked for. One that the
    server refuses for the moment (429, 503 and the like) or drops is sent again, after what `Retry-After` says; the
    wait is not part of the call's time.

    Args:
        url: where the server listens, such as `http://127.0.0.1:8000`, a base that ends in a version, such as
            `https://host/v1`, or the whole address of the endpoint; a query stays.
        model: the name to ask for; None: the server's own.
        api_key_env: NAME of the environment variable that holds the bearer token, which is sent and never kept.
        timeout_s: longest call, from the connection to the last byte. connections: most calls at once.
        name: of the server in the profile.

    Raises:
        InputError: the URL names no server, the environment variable is not set or holds what no header can, or a
            number is out of range.

    Example:
        >>> server = HttpAdapter("http://127.0.0.1:8000", model="sd3-medium", name="workshop")
        >>> server.describe().model.name, server.concurrent
        ('sd3-medium', True)
        >>> server.close()
    """

    concurrent = True
    device: str | None = None

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key_env: str | None = None,
        timeout_s: float = 600.0,
        connections: int = 64,
        name: str | None = None,
    ) -> None:
        address = ServerUrl.parse(url)
        self.url = address.shown
        self.model = model
        self.name = name or "http"
        self.timeout_s = check.number(timeout_s, "timeout_s", above=0)
        token = None if api_key_env is None else read_api_key(api_key_env)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._endpoint = address.endpoint
        self._secrets = (*([] if token is None else [token]), *address.secrets)
        httpx = need("httpx")
        try:
            httpx.URL(address.endpoint)
        except httpx.InvalidURL as error:
            raise InputError(f"url {self.url} is not an address: {error}") from None
        self._client = BoundedClient(check.integer(connections, "connections", least=1), address.query)
        self._answered = False
        self._closed = threading.Event()

    def start(self) -> ColdStart:
        """Nothing is known of a server that runs already."""
        return ColdStart()

    def describe(self) -> Description:
        """Says nothing of where the server is, which is nobody else's business."""
        return Description(
            ServerInfo(name=self.name, device="unknown"), Software(), ModelInfo(self.model or "unknown", "unknown")
        )

    def generate(self, request: GenerateRequest) -> GenerateTiming:
        """One call, sent again where that may help.

        Args:
            request: what is asked for.

        Returns:
            What it took.

        Raises:
            CallRefusedError: this call was refused, dropped or answered wrongly, and others may not be.
            InputError: the server is gone, or no call can succeed.
        """
        waited_s = 0.0
        for tries in range(1, MOST_TRIES + 1):
            last = tries == MOST_TRIES
            wait_s = FIRST_WAIT_S * 2 ** (tries - 1)
            try:
                answer = self._client.post(
                    self._endpoint,
                    self._body(request),
                    self._headers,
                    timeout_s=self.timeout_s,
                    most_bytes=most_bytes(request),
                )
            except UnreachableError as error:
                if last or not self._answered:
                    raise self._gone(str(error)) from None
            except DroppedError as error:
                # a generation is dear: what is dropped twice is not asked for a third time
                if tries > 1:
                    raise self._refused(str(error), again=True) from None
            except CallError as error:
                raise self._refused(str(error), again=False) from None
            else:
                self._answered = True
                if answer.status == 200:
                    self._check(answer, request)
                    return GenerateTiming(answer.seconds, waited_s=waited_s)
                asked_s = retry_after_s(answer.headers)
                if last or answer.status not in LATER or (answer.status not in BUSY and tries > 1):
                    raise self._status(answer)
                if asked_s is not None and waited_s + asked_s > MOST_WAIT_S:
                    asked = f"{waited_s + asked_s:.0f} s"
                    raise self._status(answer, f", and asks to wait {asked}, longer than {MOST_WAIT_S:g} s")
                wait_s = wait_s if asked_s is None else asked_s
            waited_s += wait_s
            if self._closed.wait(wait_s):
                raise self._refused("was called through an adapter that is closed", again=True)
        raise AssertionError("the last try returns or raises")

    def step_flops(self, width: int, height: int, batch: int) -> None:
        """Not known."""

    def close(self) -> None:
        self._closed.set()
        self._client.close()

    def _body(self, request: GenerateRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "prompt": request.prompt,
            "n": request.batch,
            "size": f"{request.width}x{request.height}",
            "response_format": "b64_json",
            "num_inference_steps": request.steps,
            "seed": request.seed,
        }
        return body if self.model is None else {**body, "model": self.model}

    def _check(self, answer: Answer, request: GenerateRequest) -> None:
        try:
            check_images(answer.body, answer.headers.get("content-type", ""), request)
        except AnswerError as error:
            raise self._refused(str(error), again=False) from None

    def _status(self, answer: Answer, more: str = "") -> InputError:
        """The sentence about an answer that is not 200, with the server's own reason."""
        reason = error_reason(answer.body)
        text = f"answered with status {answer.status} instead of 200{f' ({reason})' if reason else ''}{more}"
        if 300 <= answer.status < 400:
            text += "; redirects are not followed"
        if answer.status in NEVER:
            return self._gone(text)
        # an error 500 that comes twice is the point's, such as a size for which the memory does not suffice
        return self._refused(text, again=answer.status in LATER and answer.status != 500)

    def _refused(self, text: str, *, again: bool) -> CallRefusedError:
        host = urlsplit(self._endpoint).netloc
        reason = re.sub(r"\w+://\S+", "URL", self._redacted(text)).replace(host, "HOST")
        return CallRefusedError(f"server {self.url}", reason, again=again)

    def _gone(self, text: str) -> InputError:
        return InputError(f"server {self.url} {self._redacted(text)}")

    def _redacted(self, text: str) -> str:
        """A text of others without the key, which some servers repeat."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, by `Retry-After` in seconds or as a date; None where it names none.

    A date is compared with the server's own clock, where it tells it.

    Args:
        headers: of its answer, by lower-case name.

    Example:
        >>> retry_after_s({"retry-after": "2"})
        2.0
    """
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
        return None if math.isnan(seconds) else max(0.0, seconds)
    except ValueError:
        pass
    until = _date(text)
    if until is None:
        return None
    now = _date(headers.get("date", "")) or datetime.now(timezone.utc)
    return max(0.0, (until - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
