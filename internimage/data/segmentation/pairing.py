"""Which mask belongs to which picture: by folder and file name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from reprlib import repr as repr_short  # cuts long values

from internimage.data.image_folder import PICTURE_SUFFIXES
from internimage.data.image_paths import path_parts
from internimage.data.listing import list_files, list_images
from internimage.data.segmentation.dataset import MaskedPicture
from internimage.data.segmentation.label_map import MaskValues

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
MAX_LIST_BYTES = 64 * 2**20


def pairs_by_name(
    pictures: Path,
    masks: Path,
    endings: Sequence[tuple[str, MaskValues]],
    *,
    picture_ending: str = "",
) -> list[MaskedPicture]:
    """Pair the pictures below a folder with the masks of the same names below another.

    Args:
        pictures: folder of pictures, searched with all folders in it; hidden files are left out.
        masks: folder of masks, arranged in the same way.
        endings: what the name of a mask has behind the name of its picture, and what its values stand for; the first
            that exists is taken.
        picture_ending: end of the picture's name (before the type of the file) that masks lack.

    Raises:
        ValueError: there are no pictures, or a picture has no mask; the message names the first ones.
    """
    known = {_key(path, masks): path for path in list_files(masks, MASK_SUFFIXES)}
    files: list[MaskedPicture] = []
    lonely: list[Path] = []
    for path in list_images(pictures):
        stem = _key(path, pictures).removesuffix(picture_ending)
        found = next(((known[stem + end], values) for end, values in endings if stem + end in known), None)
        if found is None:
            lonely.append(path)
        else:
            files.append(MaskedPicture(path, *found))
    if not files and not lonely:
        raise ValueError(f"{pictures} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
    if lonely:
        raise ValueError(_without_masks(lonely, len(files), pictures, masks, [end for end, _ in endings]))
    return files


def pairs_of_list(
    list_file: Path, pictures: Path, masks: Path, values: MaskValues, *, suffix: str
) -> list[MaskedPicture]:
    """Pair pictures with masks by a text file that holds one name on each line.

    Folders before the name, also those of another machine, and a file type behind it are left out.

    Args:
        list_file: the names.
        pictures: folder of the pictures.
        masks: folder of the masks, PNG files.
        values: what the values of masks stand for.
        suffix: file type of the pictures, for example ".jpg".

    Raises:
        ValueError: the list is empty or no list, or a name has no files; the message names the line.
    """
    if list_file.stat().st_size > MAX_LIST_BYTES:
        raise ValueError(f"{list_file}: a list of names has at most {MAX_LIST_BYTES} bytes")
    files: list[MaskedPicture] = []
    for number, line in enumerate(list_file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        parts = path_parts(line.split()[0] if "/" in line or "\\" in line else line.strip())
        if not parts:
            raise ValueError(f"{list_file}, line {number}: expected the name of a picture, given {repr_short(line)}")
        name = parts[-1]
        if PurePath(name).suffix.lower() in PICTURE_SUFFIXES:
            name = PurePath(name).stem
        pair = MaskedPicture(pictures / f"{name}{suffix}", masks / f"{name}.png", values)
        missing = next((path for path in pair[:2] if not path.is_file()), None)
        if missing is not None:
            raise ValueError(f"{list_file}, line {number}: {missing} does not exist")
        files.append(pair)
    if not files:
        raise ValueError(f"{list_file} holds no names")
    return files


def _key(path: Path, folder: Path) -> str:
    """Path inside of a folder without the type of the file."""
    return path.relative_to(folder).with_suffix("").as_posix()


def _without_masks(lonely: list[Path], paired: int, pictures: Path, masks: Path, endings: list[str]) -> str:
    first, number = lonely[0], len(lonely)
    stem = first.relative_to(pictures).with_suffix("").as_posix()
    has_jpeg = any(path.stem.startswith(first.stem) for path in list_files(masks, (".jpg", ".jpeg")))
    hint = (
        "JPEG files cannot be masks, since JPEG changes the values: save them as PNG"
        if has_jpeg
        else "add the masks, or move these pictures away"
    )
    return (
        f"{number} of {number + paired} pictures have no mask: {', '.join(str(path) for path in lonely[:5])}; "
        f"looked for {masks / stem} with the endings {', '.join(f'{end}.png' for end in endings)} (or "
        f"{', '.join(MASK_SUFFIXES[1:])}); {hint}"
    )
