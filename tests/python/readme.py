"""What README.md says, read from there, so that a test and the README cannot differ."""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def block(language, with_text):
    """The only code block of a language with this text in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    (found,) = [block for block in blocks if with_text in block]
    return found
