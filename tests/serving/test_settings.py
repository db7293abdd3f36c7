from __future__ import annotations

from pathlib import Path

import pytest

from internimage.serving import Limits, Served, Serving, named_models


def test_models_are_named_after_names_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "cats.safetensors").touch()
    (tmp_path / "a=b").mkdir()
    texts = ["internimage_t_1k_224", str(tmp_path / "cats.safetensors"), "mine=x.pth"]
    assert [model.name for model in named_models(texts)] == ["internimage_t_1k_224", "cats", "mine"]
    with pytest.raises(ValueError, match=r"given 'a=b'; write NAME=MODEL"):
        named_models([str(tmp_path / "a=b")])
    assert named_models([f"ab={tmp_path / 'a=b'}"]) == (Served("ab", str(tmp_path / "a=b")),)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "ä", "x" * 101])
def test_names_must_fit_into_an_address(name: str) -> None:
    with pytest.raises(ValueError, match="needs a name"):
        Served(name, "x")


def test_what_is_served_is_checked() -> None:
    with pytest.raises(ValueError, match="two models have the name a"):
        Serving((Served("a", "x"), Served("a", "y")))
    with pytest.raises(ValueError, match="at least one model"):
        Serving(())
    with pytest.raises(ValueError, match="body_bytes"):
        Limits(body_bytes=0)
