"""Small XML files without document types: entities, and with them expansion bombs, cannot be declared."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from internimage.data.untrusted.files import MAX_TEXT_BYTES, read_bytes

MAX_DEPTH = 32


class _WithoutDoctype(TreeBuilder):
    """Stops at the first document type."""

    def doctype(self, *_: object) -> None:
        """Refuse what the parser found."""
        raise ValueError("document types and entities are not accepted")


def read_xml(file: Path) -> Element:
    """Return the root element of an XML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is too large, no XML, nested too deeply, or declares a document type; the message names the file.
    """
    content = read_bytes(file, max_bytes=MAX_TEXT_BYTES)
    parser = XMLParser(target=_WithoutDoctype())
    try:
        parser.feed(content)
        root = parser.close()
    except (ParseError, LookupError) as error:
        raise ValueError(f"{file} is no valid XML file: {error}") from error
    except ValueError as error:
        line = content[: max(content.find(b"<!DOCTYPE"), 0)].count(b"\n") + 1
        raise ValueError(f"{file}, line {line}: {error}") from error
    level = [root]
    for _ in range(MAX_DEPTH):
        level = [inner for element in level for inner in element]
        if not level:
            return root
    raise ValueError(f"{file}: nested deeper than {MAX_DEPTH} elements")


def texts(element: Element | None) -> dict[str, str]:
    """Return the text of each child by its tag, the first of several; nothing where there is no element.

    Example:
        >>> from xml.etree.ElementTree import fromstring
        >>> texts(fromstring("<size><width> 80 </width><height/></size>"))
        {'width': '80', 'height': ''}
    """
    found: dict[str, str] = {}
    for child in element if element is not None else ():
        found.setdefault(child.tag, (child.text or "").strip())
    return found
