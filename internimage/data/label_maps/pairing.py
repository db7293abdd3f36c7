"""Which mask belongs to which image: by folder and file name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from reprlib import repr as repr_short  # cuts long values

from internimage.data.images.image_paths import path_parts
from internimage.data.label_maps.dataset import MaskedImage
from internimage.data.label_maps.label_map import MaskValues
from internimage.data.listing import list_files, list_images
from internimage.data.readers.folders import IMAGE_SUFFIXES
from internimage.data.untrusted.files import read_bytes

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
MAX_LIST_BYTES = 64 * 2**20


def pairs_by_name(
    images: Path, masks: Path, endings: Sequence[tuple[str, MaskValues]], *, image_ending: str = ""
) -> list[MaskedImage]:
    """Pair the images below a folder with the masks of the same names below another.

    Args:
        images: folder of images, searched with all folders in it; hidden files are left out.
        masks: folder of masks, arranged in the same way.
        endings: what the name of a mask has behind the name of its image, and what its values stand for; the first
            that exists is taken.
        image_ending: end of the image's name (before the type of the file) that masks lack.

    Raises:
        ValueError: there are no images, or an image has no mask; the message names the first ones.
    """
    known = {_key(path, masks): path for path in list_files(masks, MASK_SUFFIXES)}
    files: list[MaskedImage] = []
    lonely: list[Path] = []
    for path in list_images(images):
        stem = _key(path, images).removesuffix(image_ending)
        found = next(((known[stem + end], values) for end, values in endings if stem + end in known), None)
        if found is None:
            lonely.append(path)
        else:
            files.append(MaskedImage(path, *found))
    if not files and not lonely:
        raise ValueError(f"{images} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    if lonely:
        raise ValueError(_without_masks(lonely, len(files), images, masks, [end for end, _ in endings]))
    return files


def pairs_of_list(list_file: Path, images: Path, masks: Path, values: MaskValues, *, suffix: str) -> list[MaskedImage]:
    """Pair images with masks (PNG files) by a text file that holds one name on each line.

    Folders before the name, also those of another machine, and a file type behind it are left out. `suffix` is the file
    type of the images, for example ".jpg".

    Raises:
        ValueError: the list is empty or no list, or a name has no files; the message names the line.
    """
    content = read_bytes(list_file, max_bytes=MAX_LIST_BYTES)
    files: list[MaskedImage] = []
    for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        parts = path_parts(line.split()[0] if "/" in line or "\\" in line else line.strip())
        if not parts:
            raise ValueError(f"{list_file}, line {number}: expected the name of an image, given {repr_short(line)}")
        name = parts[-1]
        if PurePath(name).suffix.lower() in IMAGE_SUFFIXES:
            name = PurePath(name).stem
        pair = MaskedImage(images / f"{name}{suffix}", masks / f"{name}.png", values)
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


def _without_masks(lonely: list[Path], paired: int, images: Path, masks: Path, endings: list[str]) -> str:
    first, number = lonely[0], len(lonely)
    stem = first.relative_to(images).with_suffix("").as_posix()
    has_jpeg = any(path.stem.startswith(first.stem) for path in list_files(masks, (".jpg", ".jpeg")))
    hint = (
        "JPEG files cannot be masks, since JPEG changes the values: save them as PNG"
        if has_jpeg
        else "add the masks, or move these images away"
    )
    return (
        f"{number} of {number + paired} images have no mask: {', '.join(str(path) for path in lonely[:5])}; "
        f"looked for {masks / stem} with the endings {', '.join(f'{end}.png' for end in endings)} (or "
        f"{', '.join(MASK_SUFFIXES[1:])}); {hint}"
    )
