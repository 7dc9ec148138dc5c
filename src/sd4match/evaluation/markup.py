"""HTML that is safe by construction: all content except elements is escaped."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable

_ALONE = frozenset({"img", "meta", "source"})
"""Elements without an end."""


class Html(str):
    """Text that is already HTML."""

    __slots__ = ()


def element(tag: str, *content: str | Iterable[str], **attributes: str | bool) -> Html:
    """Return an element; content that is not HTML and all values of attributes are escaped.

    Args:
        tag: its name.
        content: texts, elements, or iterables of them.
        attributes: attributes by name; `class_` is class, `aria_label` is aria-label, True writes only the name, False
            nothing.

    >>> element("p", "a < b", element("b", "c"), class_='"x"')
    '<p class="&quot;x&quot;">a &lt; b<b>c</b></p>'
    """
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escaped(str(value))}"')
        for name, value in attributes.items()
        if value is not False
    )
    if tag in _ALONE:
        return Html(f"<{tag}{written}>")
    inner = "".join(piece for given in content for piece in _pieces(given))
    return Html(f"<{tag}{written}>{inner}</{tag}>")


def _pieces(content: str | Iterable[str]) -> Iterable[str]:
    for piece in [content] if isinstance(content, str) else content:
        yield piece if isinstance(piece, Html) else escaped(piece)


def escaped(text: str) -> str:
    r"""Return a text for HTML, also for attributes; characters that are no text or turn its direction are replaced.

    >>> escaped("<'\"&\x00\u202e>")
    '&lt;&#x27;&quot;&amp;\ufffd\ufffd&gt;'
    """
    return html.escape("".join(letter if _is_text(letter) else "\ufffd" for letter in text))


def _is_text(letter: str) -> bool:
    return letter in "\n\t" or not (
        unicodedata.category(letter) in ("Cc", "Cs")
        or unicodedata.bidirectional(letter) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    )
