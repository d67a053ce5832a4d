"""What a command's process needs of the machine around it, and what it spares its user of."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def settle() -> None:
    """Lets matplotlib keep its caches in a temporary folder, where it would warn that the home is not writable.

    Lightning imports it through torchmetrics, also for commands that draw nothing.
    """
    if "MPLCONFIGDIR" in os.environ or _home_is_writable():
        return
    folder = tempfile.mkdtemp(prefix="diffpolicy-matplotlib-")
    os.environ["MPLCONFIGDIR"] = folder
    atexit.register(_remove, folder, os.getpid())


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:  # not in a fork, which inherits this
        shutil.rmtree(folder, ignore_errors=True)


def _home_is_writable() -> bool:
    """Whether matplotlib can make its folders, of settings and of caches, below the home."""
    try:
        home = Path.home()
    except RuntimeError:
        return False
    for variable, name in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache")):
        place = Path(os.environ.get(variable) or home / name) / "matplotlib"
        while not place.exists() and place != place.parent:
            place = place.parent
        if not (place.is_dir() and os.access(place, os.W_OK)):
            return False
    return True


@contextmanager
def without_matplotlib() -> Iterator[None]:
    """While it lasts, torchmetrics takes matplotlib for not installed, and so does not import it.

    It would, where Lightning is imported, to draw metrics; no command does. It costs half a second.
    """
    from lightning_utilities.core.imports import RequirementCache

    def installed(requirement: RequirementCache) -> bool:
        return not (requirement.requirement or "").startswith("matplotlib") and before(requirement)

    before = RequirementCache.__bool__
    RequirementCache.__bool__ = installed  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        RequirementCache.__bool__ = before  # type: ignore[method-assign]
