"""Names of files and classes come from anywhere; none of them steers the terminal that shows it."""

from __future__ import annotations

import json
import logging

import pytest
from rich.text import Text

from internimage.cli.terminal import log_to_stderr, note, print_fields, print_table
from internimage.files import json_text

NAME = "a\x1b]0;title\x07[red]b[/red]\x9b31m\u202e"
SHOWN = r"a\x1b]0;title\x07[red]b[/red]\x9b31m\u202e"


def test_tables_fields_and_notes_spell_escapes_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name"], [[NAME], [Text("b\x1b[2J", "bold")]])
    print_fields({NAME: NAME}, title=NAME)
    note(f"first\n{NAME}")
    out, err = capsys.readouterr()
    assert out.count(SHOWN) == 4 and r"b\x1b[2J" in out and err == f"first\n{SHOWN}\n"
    assert "\x1b" not in out + err and "\u202e" not in out + err


def test_the_log_spells_escapes_out(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("internimage")
    handlers, level = logger.handlers, logger.level
    try:
        log_to_stderr(logging.INFO)
        logger.info("reading %s", NAME)
    finally:
        logger.handlers, logger.level = handlers, level
    assert capsys.readouterr().err == f"INFO: reading {SHOWN}\n"


def test_json_is_plain_text_and_loses_nothing() -> None:
    row = {"path": NAME + "\udcff \u2028", "score": float("nan"), "name": "猫"}
    text = json_text(row, ensure_ascii=False)
    assert text.isprintable() and "猫" in text
    assert json.loads(text) == {**row, "score": None}
