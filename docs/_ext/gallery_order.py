"""The order in which a newcomer takes the tutorials."""

from __future__ import annotations

ORDER = (
    "first_run",
    "own_problem",
    "own_policy",
    "own_objective",
    "reproduce_lad_ts",
    "from_a_csv",
    "profile_a_server",
    "serve_a_policy",
    "hold_or_bind",
    "scale_out",
)


class ByTutorial:
    """A sort key of sphinx-gallery: those of `ORDER` first."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, file: str) -> tuple[int, str]:
        name = file.removesuffix(".py")
        return (ORDER.index(name) if name in ORDER else len(ORDER), name)

    def __repr__(self) -> str:
        return "ByTutorial()"
