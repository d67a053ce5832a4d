"""The text of the package's page, made from README.md. All else that a build needs to know is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import setup


def page(readme: str) -> str:
    """README.md without what only the repository can show: its picture with the caption, and links to its files.

    Args:
        readme: Markdown. A relative link becomes its words.
    """
    text = re.sub(r"<picture>.*?</picture>\n\n\*[^*]*\*\n\n", "", readme, flags=re.DOTALL)
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", text)


setup(
    long_description=page(Path(__file__).with_name("README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
