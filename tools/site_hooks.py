"""Hooks of mkdocs: pages made of files outside docs/, and links of the documents that lead out of docs/.

The documents link to files of the repository (`../CHANGELOG.md`), so that they can be read there. On the site such a
link leads to the page made of that file, or to the repository where `repo_url` is set; otherwise only its text is left.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "src/sd4match/backbones/mini_weights/README.md": "mini.md",
}
"""Pages of the site by the file of the repository that they show; `index.md` is written for the site."""
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made of files outside docs/."""
    for source, page in PAGES.items():
        if page != "index.md":
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=relink(text, source, page, config.repo_url)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite the links of a document that lead out of docs/."""
    if page.file.src_uri in PAGES.values() and page.file.src_uri != "index.md":
        return markdown
    return relink(markdown, f"docs/{page.file.src_uri}", page.file.src_uri, config.repo_url)


def relink(text: str, source: str, page: str, repository: str | None) -> str:
    """Return a text whose links lead from its page on the site.

    Args:
        text: Markdown, with links relative to its file.
        source: the file, relative to the root of the repository.
        page: the page that shows it, relative to docs/.
        repository: address of the repository; None if it has none.

    Returns:
        The text with links between pages, or into the repository, or without links that lead nowhere on the site.

    >>> relink("[changes](../CHANGELOG.md#app), [a test](../tests/a.py)", "docs/a.md", "a.md", None)
    '[changes](changelog.md#app), a test'
    >>> relink("[layers](docs/how-to/a.md)", "CONTRIBUTING.md", "contributing.md", None)
    '[layers](how-to/a.md)'
    """

    def rewrite(match: re.Match[str]) -> str:
        mark, label, link = match.groups()
        address = urlsplit(link)
        if address.scheme or not address.path:
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), address.path))
        anchor = f"#{address.fragment}" if address.fragment else ""
        if target in PAGES:
            target = f"docs/{PAGES[target]}"
        if target.startswith("docs/"):
            relative = posixpath.relpath(target.removeprefix("docs/"), posixpath.dirname(page) or ".")
            return f"{mark}[{label}]({relative}{anchor})"
        if repository:
            return f"{mark}[{label}]({repository.rstrip('/')}/blob/main/{target}{anchor})"
        return str(label)

    parts = re.split(r"(^```.*?^```)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else _LINK.sub(rewrite, part) for part in parts)
