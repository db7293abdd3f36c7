from __future__ import annotations

from pathlib import Path

import pytest

from internimage.errors import CheckpointMismatch, UnknownName, clean_name, printable


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain näme 猫 👩\u200d🌾", "plain näme 猫 👩\u200d🌾"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\ud800", r"\ud800"),
        ("\u2028", r"\u2028"),
        (Path("a\x1b.pth"), r"a\x1b.pth"),
        (["\x1b"], r"['\x1b']"),
        (None, "None"),
        (0.5, "0.5"),
    ],
)
def test_foreign_text_is_shown_without_control_characters(value: object, shown: str) -> None:
    assert printable(value) == shown


def test_long_texts_are_cut_in_the_middle() -> None:
    shown = printable("head" + "\x1b" * 3_000_000 + "tail", 50)
    assert len(shown) == 50 and shown.startswith("head") and shown.endswith("tail") and " ... " in shown
    assert len(printable(list(range(10**6)))) <= 200
    assert printable(10**5000) == "an integer of 16610 bits" and len(printable([10**5000])) < 100
    loop: list = []
    loop.append(loop)
    assert printable(loop).count("[") == printable(loop).count("]") < 20
    assert printable("one\ntwo\x07", keep="\n") == "one\ntwo\\x07"


def test_names_of_classes_lose_what_is_no_part_of_them() -> None:
    assert clean_name(" cat\r\n") == "cat"
    assert clean_name("\x1b[31mred\x1b[0m") == "[31mred[0m"
    assert clean_name("\u2066a\u2069 b") == "a b"


def test_a_mismatch_stays_short_and_keeps_everything() -> None:
    keys = [f"levels.0.blocks.{i}.{'x' * 500}\x1b" for i in range(1000)]
    error = CheckpointMismatch("a\x1b.pth", keys, keys, [(key, (1,) * 999, (2,)) for key in keys], "Try again.")
    text = str(error)
    assert len(text) < 1000 and "\x1b" not in text and r"a\x1b.pth" in text
    assert text.count("... and 998 more") == 3 and text.endswith("Try again.")
    assert error.missing == tuple(keys) and len(error.wrong_shape) == 1000


def test_one_kind_of_difference_is_listed_further() -> None:
    error = CheckpointMismatch("a.pth", missing=[f"k{i}" for i in range(12)])
    assert "  k5\n  ... and 6 more" in str(error)


def test_an_unknown_name_is_cut() -> None:
    text = str(UnknownName("model", "\x1b" * 100_000, ["a", "b"]))
    assert len(text) < 400 and "\x1b" not in text
