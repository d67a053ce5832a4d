"""Pictures of the tables that a tutorial draws: where a block of code plots a CSV, the page shows it, light and dark.

    cli.main("plot runs/mine/evaluation.csv".split())

A scraper of sphinx-gallery: it draws the table again from the file alone, as the command did, for both grounds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from diffpolicy._draw.frame import Frame
from diffpolicy.experiments.plots import draw, kind_of

COMMAND = re.compile(r'"plot ([^"]*)"')
TABLE = re.compile(r"[\w./-]+\.csv")
PICTURE = """
.. image:: /{path}
   :alt: {alt}
   :class: only-{theme}
"""


def tables(code: str) -> list[str]:
    """The CSV files that a block of code plots."""
    return [table for command in COMMAND.findall(code) for table in TABLE.findall(command)]


def scraper(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any], **_: Any) -> str:
    """What a page shows below a block of code."""
    folder, shown = Path(block_vars["src_file"]).parent, []
    for table in tables(block.content):
        frame = Frame.read(folder / table)
        alt = f"{Path(table).stem.replace('_', ' ')}: {kind_of(frame).name}"
        at = Path(next(block_vars["image_path_iterator"]))
        for dark in (False, True):
            # of several pictures of a table the first is its own
            picture = draw(folder / table, at.parent, ["svg"], dark=dark)[0]
            final = picture.replace(at.with_name(f"{at.stem}{'-dark' if dark else ''}.svg"))
            path = final.relative_to(gallery_conf["src_dir"]).as_posix()
            shown.append(PICTURE.format(path=path, alt=alt, theme="dark" if dark else "light"))
    return "\n".join(shown)


def _get_sg_image_scraper() -> Any:
    return scraper
