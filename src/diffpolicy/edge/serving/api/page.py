"""The live page, one file without anything from elsewhere, and the policy that holds a browser to that."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

PAGE = (resources.files("diffpolicy.edge.serving.api") / "page.html").read_text("utf-8")
"""The page. It holds no data: it asks `/snapshot` for them, with a key where one is needed."""


def _hashes(tag: str) -> str:
    """What a browser may run or apply: exactly the texts within a tag."""
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(x.encode()).digest()).decode()}'" for x in texts)


POLICY = "; ".join(
    [
        "default-src 'none'",
        f"script-src {_hashes('script')}",
        f"style-src {_hashes('style')}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""Content security policy of the page."""
