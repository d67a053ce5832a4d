"""The manual's diagrams: words stay on their sheet and in their boxes, light and dark, and files are there."""

import sys
from pathlib import Path

import pytest
from matplotlib.patches import FancyBboxPatch

from diffpolicy._draw.canvas import THEMES

ROOT = Path(__file__).parents[1]


@pytest.fixture
def diagrams(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import diagrams

    return diagrams


def test_words_stay_on_their_sheet_and_in_their_boxes(diagrams):
    for name, diagram in diagrams.DIAGRAMS.items():
        with THEMES[False].applied():
            figure = diagram(THEMES[False])
            figure.draw_without_rendering()
        for axes in figure.axes:
            words = {text: text.get_window_extent() for text in axes.texts if text.get_text()}
            for text, extent in words.items():
                assert figure.bbox.fully_contains(*extent.min), f"{name}: {text.get_text()}"
                assert figure.bbox.fully_contains(*extent.max), f"{name}: {text.get_text()}"
            for box in (patch.get_window_extent() for patch in axes.patches if isinstance(patch, FancyBboxPatch)):
                for text, extent in words.items():
                    if box.contains(*(extent.min + extent.max) / 2):
                        assert box.fully_contains(*extent.min), f"{name}: {text.get_text()}"
                        assert box.fully_contains(*extent.max), f"{name}: {text.get_text()}"
                    else:
                        assert not box.overlaps(extent), f"{name}: {text.get_text()}"


@pytest.mark.parametrize("dark", THEMES)
def test_every_diagram_stands_beside_the_pages(diagrams, dark):
    for name in diagrams.DIAGRAMS:
        assert (ROOT / "docs" / "_static" / f"{name}{'-dark' if dark else ''}.svg").is_file(), name
