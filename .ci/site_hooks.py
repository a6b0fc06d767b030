"""What the site changes of a page: links that leave docs/ are files of the repository, which the site does not have."""

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Name the file where a link would lead out of the site."""
    return OUTSIDE.sub(
        lambda match: match[1] if match[1] == f"`{match[2]}`" else f"{match[1]} (`{match[2]}` in the repository)",
        markdown,
    )
