"""Small XML files without document types: entities, and with them expansion bombs, cannot be declared."""

from __future__ import annotations

import xml.parsers.expat
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder

from internimage.data.detection.files import MAX_TEXT_BYTES, read_bytes

MAX_DEPTH = 32


def read_xml(file: Path) -> Element:
    """Return the root element of an XML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is too large, no XML, nested too deeply, or declares a document type; the message names the file,
            and the line where there is one.
    """
    content = read_bytes(file, max_bytes=MAX_TEXT_BYTES)
    builder = TreeBuilder()
    parser = xml.parsers.expat.ParserCreate()
    depth = 0

    def refuse(*_: object) -> None:
        raise ValueError(f"{file}, line {parser.CurrentLineNumber}: document types and entities are not accepted")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"{file}, line {parser.CurrentLineNumber}: nested deeper than {MAX_DEPTH} elements")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (xml.parsers.expat.ExpatError, LookupError) as error:
        raise ValueError(f"{file} is no valid XML file: {error}") from error
    return builder.close()
