"""The API that clients speak to: OpenAI's Images API over a service, metrics, the log and the live page."""

from typing import TYPE_CHECKING

from diffpolicy._lazy import attach

if TYPE_CHECKING:
    from diffpolicy.edge.serving.api.app import make_app as make_app
    from diffpolicy.edge.serving.api.keys import ApiKeys as ApiKeys
    from diffpolicy.edge.serving.api.settings import ApiSettings as ApiSettings

_HERE = "diffpolicy.edge.serving.api."
attach(
    __name__,
    {"ApiKeys": _HERE + "keys", "ApiSettings": _HERE + "settings", "make_app": _HERE + "app"},
)
__all__ = ("ApiKeys", "ApiSettings", "make_app")
