"""`HttpAdapter`: a server that speaks OpenAI's `POST /v1/images/generations`."""

from __future__ import annotations

import os
import time
from typing import Any
from urllib.parse import urlsplit

from diffpolicy._validate import show
from diffpolicy.edge.hardware.adapter import Description, GenerateRequest, GenerateTiming
from diffpolicy.edge.hardware.optional import need
from diffpolicy.edge.hardware.records import ColdStart, ModelInfo, ServerInfo, Software
from diffpolicy.errors import InputError

PATH = "/v1/images/generations"


class HttpAdapter:
    """A server behind a URL. It tells only what a whole call takes, the network included.

    The body holds `prompt`, `n`, `size` and `model`, and the extensions `num_inference_steps` and `seed`; a server that
    ignores the steps shows it as a step time of nothing, and the fit says so.

    Args:
        url: where the server listens, such as `http://127.0.0.1:8000`; the path is added if it is not there.
        model: the name to ask for; None: the server's own.
        api_key_env: NAME of the environment variable that holds the bearer token, which is sent and never kept.
        timeout_s: longest wait for an answer. connections: most calls at once.
        name: of the server in the profile.

    Raises:
        InputError: the URL is not http or https, or the environment variable is not set.
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
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"url must begin with http:// or https://, got {show(url)}")
        if parts.username or parts.password:
            raise InputError("url must hold no user name or password; name an environment variable with --api-key-env")
        self.url = url if parts.path.rstrip("/").endswith(PATH) else url.rstrip("/") + PATH
        self.model = model
        self.name = name or "http"
        self._headers = {}
        if api_key_env is not None:
            token = os.environ.get(api_key_env)
            if not token:
                raise InputError(f"environment variable {show(api_key_env)}, which should hold the API key, is not set")
            self._headers["Authorization"] = f"Bearer {token}"
        httpx = need("httpx")
        self._httpx = httpx
        # proxies of the environment would otherwise swallow traffic to this machine
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=10.0),
            limits=httpx.Limits(max_connections=connections),
            trust_env=False,
        )

    def start(self) -> ColdStart:
        """Nothing is known of a server that runs already."""
        return ColdStart()

    def describe(self) -> Description:
        """Says nothing of where the server is, which is nobody else's business."""
        return Description(
            ServerInfo(name=self.name, device="unknown"), Software(), ModelInfo(self.model or "unknown", "unknown")
        )

    def generate(self, request: GenerateRequest) -> GenerateTiming:
        body: dict[str, Any] = {
            "prompt": request.prompt,
            "n": request.batch,
            "size": f"{request.width}x{request.height}",
            "num_inference_steps": request.steps,
            "seed": request.seed,
        }
        if self.model is not None:
            body["model"] = self.model
        start = time.perf_counter()
        try:
            answer = self._client.post(self.url, json=body, headers=self._headers)
        except self._httpx.TimeoutException:
            raise InputError(f"server {self.url} did not answer in time") from None
        except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
            raise InputError(f"server {self.url} cannot be reached: {error}") from None
        total_s = time.perf_counter() - start
        if answer.status_code != 200:
            raise InputError(f"server {self.url} answered with status {answer.status_code} instead of 200")
        try:
            images = answer.json()["data"]
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"server {self.url} answered with status 200, but not with a JSON object that has 'data'"
            ) from None
        if not isinstance(images, list) or len(images) != request.batch:
            got = len(images) if isinstance(images, list) else show(images)
            raise InputError(f"server {self.url} answered with status 200 and {got} images instead of {request.batch}")
        return GenerateTiming(total_s)

    def step_flops(self, width: int, height: int, batch: int) -> None:
        """Not known."""

    def close(self) -> None:
        self._client.close()
