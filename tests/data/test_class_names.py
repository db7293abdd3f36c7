from __future__ import annotations

import unicodedata

import pytest

from internimage.data.class_names import match_classes, place_names, some_names
from internimage.data.labels import label_set, rows_22k_to_1k

DIGITS = tuple("0123456789")


@pytest.mark.parametrize(
    ("wanted", "offered", "rows"),
    [
        (("pear", "plum", "apple"), ("apple", "pear", "plum"), (1, 2, 0)),
        (("pear", "quince"), ("apple", "pear", "plum"), (1, -1)),
        (("Hot_Dog", "traffic-light", "TV monitor"), ("tvmonitor", "hot dog", "Traffic Light"), (1, 2, 0)),
        (("cat", "Cat"), ("Cat", "cat"), (1, 0)),  # exact names come first
        (("CAT",), ("Cat", "cat"), (-1,)),  # two are equally near
        (("cat", "CAT"), ("cat", "dog"), (0, -1)),
        ((unicodedata.normalize("NFD", "Löwe"),), (unicodedata.normalize("NFC", "löwe"), "x"), (0,)),
        (("step 1-1", "step 11"), ("step 11", "step 1 1"), (1, 0)),
        (tuple("1234567890"), DIGITS, (1, 2, 3, 4, 5, 6, 7, 8, 9, 0)),
        (tuple("31"), DIGITS, (3, 1)),  # digits that both sides have are names
        (("7", "3"), ("3", "7", "9"), (1, 0)),
    ],
)
def test_names_decide(wanted: tuple[str, ...], offered: tuple[str, ...], rows: tuple[int, ...]) -> None:
    match = match_classes(wanted, offered)
    assert match is not None and match.rows == rows and match.by_name
    assert match.missing == tuple(name for name, row in zip(wanted, rows, strict=True) if row < 0)
    assert match.unused == tuple(name for i, name in enumerate(offered) if i not in rows)


@pytest.mark.parametrize(
    ("wanted", "offered", "rows"),
    [
        (3, ("a", "b", "c"), (0, 1, 2)),
        (("a", "b"), 2, (0, 1)),
        (2, 2, (0, 1)),
        (("0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9"), 11, (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)),
        (("02", "01", "00"), ("a", "b", "c"), (2, 1, 0)),  # what the name spells, not where it stands
        (("class 1", "class_2", "Class3"), ("a", "b", "c"), (0, 1, 2)),  # numbers that start from 1
        (("a", "b", "c"), ("1", "0", "2"), (1, 0, 2)),
        (("00", "01"), ("class 1", "class 0"), (1, 0)),
    ],
)
def test_mere_numbers_are_no_names(
    wanted: tuple[str, ...] | int, offered: tuple[str, ...] | int, rows: tuple[int, ...]
) -> None:
    match = match_classes(wanted, offered)
    assert match is not None and match.rows == rows and not match.missing and not match.unused
    assert not match.by_name


@pytest.mark.parametrize(
    ("wanted", "offered"), [(3, ("a", "b")), (("0", "1"), ("a", "b", "c")), (4, 5), (("a", "b", "c"), ("0", "1"))]
)
def test_another_number_of_mere_numbers(wanted: tuple[str, ...] | int, offered: tuple[str, ...] | int) -> None:
    assert match_classes(wanted, offered) is None


def test_numbers_with_gaps_are_names() -> None:
    match = match_classes(("3", "7"), ("cat", "dog"))
    assert match is not None and match.missing == ("3", "7") and match.by_name


@pytest.mark.parametrize(
    ("wanted", "offered", "rows", "missing"),
    [
        (("1", "2", "3", "4"), ("0", "1", "2", "3"), (1, 2, 3, -1), ("4",)),
        (("0", "1", "2"), ("3", "1", "2"), (-1, 1, 2), ("0",)),
    ],
)
def test_numbers_that_both_sides_have_stay_at_their_names(
    wanted: tuple[str, ...], offered: tuple[str, ...], rows: tuple[int, ...], missing: tuple[str, ...]
) -> None:
    match = match_classes(wanted, offered)
    assert match is not None and match.by_name
    assert match.rows == rows and match.missing == missing


def test_equal_lists_may_hold_a_name_twice() -> None:
    names = ("crane", "ibis", "crane")
    for same in (names, ("Crane", "ibis", "CRANE")):
        match = match_classes(names, same)
        assert match is not None and match.is_identity
    with pytest.raises(ValueError, match="two classes of the name 'crane'"):
        place_names(["crane"], ["crane", "ibis", "crane"])
    assert place_names(["ibis"], ["crane", "ibis", "crane"]) == (1,)


def test_synsets_of_imagenet() -> None:
    small, large = label_set("imagenet_1k"), label_set("imagenet_22k")
    assert small.synsets is not None
    for wanted in (small.synsets, small.class_names):
        match = match_classes(wanted, large.class_names)
        assert match is not None and match.rows == rows_22k_to_1k() and not match.missing
    folders = ("n03445777", "n01440764")  # golf ball and tench, as the folders of a small part of ImageNet are called
    match = match_classes(folders, small.class_names)
    assert match is not None and match.rows == (574, 0) and len(match.unused) == 998
    numbered = match_classes(1000, 21841)
    assert numbered is not None and numbered.rows == rows_22k_to_1k()


def test_names_in_messages_are_cut() -> None:
    assert some_names(["x" * 1000]) == repr("x" * 60 + "...")
    assert some_names(["a"] * 7).endswith("and 2 more")
