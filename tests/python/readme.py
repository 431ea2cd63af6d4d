"""Code blocks of README.md and of examples/README.md, read from there, so that a test and a page cannot differ."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def block(language, with_text, page="README.md"):
    """Returns the only code block of a language with this text in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    (found,) = [block for block in blocks if with_text in block]
    return found
