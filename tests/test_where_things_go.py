"""The table that says where a new thing goes names only places that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_place_that_the_table_names_is_there() -> None:
    page = (ROOT / "docs" / "extending.md").read_text().partition("## Where things go")[2]
    named = set(re.findall(r"`((?:[\w.]+/)+(?:[\w.]+)?)`", page)) - {"src/diffpolicy/"}
    assert len(named) > 20
    bases = (ROOT / "src" / "diffpolicy", ROOT)  # of a problem, pages, tests and examples too
    missing = sorted(path for path in named if not any((base / path).exists() for base in bases))
    assert not missing
