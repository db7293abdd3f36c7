"""From a folder to a segmentation data set: which layout it has and which part of it is asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial, reduce
from operator import add
from os import PathLike
from pathlib import Path

from internimage.data.class_list import FILES, OTHER_FILES, ClassList, colors, find_class_list, given_class_list
from internimage.data.label_maps.dataset import SegmentationDataset
from internimage.data.label_maps.layouts import OWN, PUBLISHED_LAYOUTS, Layout, own_files, own_folders, own_text
from internimage.data.labels import label_set
from internimage.data.parts import find_part, only_folder, say_inner_folder
from internimage.errors import UnknownName
from internimage.types import Palette

logger = logging.getLogger(__name__)


def open_segmentation_dataset(
    root: str | PathLike[str],
    *,
    split: str = "val",
    layout: str | None = None,
    class_names: Sequence[str] | str | PathLike[str] | None = None,
    palette: Palette | None = None,
    test_stands_in: bool = True,
) -> SegmentationDataset:
    """Open a segmentation data set by its folder.

    Args:
        root: folder of a published data set in its usual layout, or of own data: `images/train` and `masks/train`,
            `train/images` and `train/masks`, or `train` and `masks/train` (also `labels` or `annotations` instead of
            `masks`), or the folders of Cityscapes, with the classes in `classes.txt` or `classes.json` (or in another
            file of `internimage.data.class_list`, where the data is no published one).
        split: "train", "val", "test", "train_extra" (Cityscapes), or several joined by "+", for example
            "train+train_extra". Folders of own data may have other names of these parts, see `internimage.data.parts`.
        layout: "ade20k", "cityscapes", "coco_stuff_164k", "coco_stuff_10k", "pascal_context", "nyu", "mapillary" (as
            the 19 classes of Cityscapes) or "folders" (own data); None recognizes it. A class list means own data.
        class_names: names of the classes of own data, or the file that holds them, see `read_class_list`.
        palette: colors of the classes of own data, for masks that are colored images.
        test_stands_in: take the test part of own data, with a warning, where "val" is asked for and is not there.

    Raises:
        FileNotFoundError: the folder or a part of it is missing; the message says what was looked for.
        UnknownName: `layout` is not known.
        ValueError: images have no masks, the classes are not known, or a list is damaged.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; give the folder of the data set, archives unpacked")
    known = {entry.name: entry for entry in PUBLISHED_LAYOUTS}
    if layout is not None and layout not in (OWN, *known):
        raise UnknownName("layout", layout, (OWN, *known))
    parts = split.split("+")
    candidates = [known[layout]] if layout in known else list(PUBLISHED_LAYOUTS)
    inner = only_folder(root)
    if inner is not None and not _holds(root, parts, candidates) and _holds(inner, parts, candidates):
        say_inner_folder(root, inner)
        root = inner
    is_own = (layout == OWN or palette is not None) or not any(
        entry.looks_published(home, part) for part in parts for entry, home in _homes(root, part, candidates)
    )
    classes = _own_classes(root, class_names, palette, files=(*FILES, *OTHER_FILES) if is_own else FILES)
    if layout == OWN or (layout is None and classes is not None):
        return reduce(add, [_open_own(root, part, classes, test_stands_in=test_stands_in) for part in parts])
    if classes is not None and class_names is not None:
        raise ValueError(f"the layout {layout!r} has its own classes; leave class_names and palette out")
    return reduce(add, [_open_published(root, part, candidates) for part in parts])


def pair_folders(
    images: str | PathLike[str],
    masks: str | PathLike[str],
    *,
    class_names: Sequence[str] | str | PathLike[str],
    palette: Palette | None = None,
) -> SegmentationDataset:
    """Open a folder of images and a folder of masks with the same names, wherever they are.

    Args:
        images: folder of images.
        masks: folder of masks: PNG files of one channel that hold class indices, 255 for no label.
        class_names: names of the classes, or the file that holds them, see `read_class_list`.
        palette: colors of the classes, for masks that are colored images.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: images have no masks, or the classes are not known.
    """
    for folder in (Path(images), Path(masks)):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder; give the folders of the images and of the masks")
    classes = _given_classes(class_names, palette)
    return SegmentationDataset(own_files(Path(images), Path(masks), classes), classes.names, palette=classes.palette)


def _open_published(root: Path, split: str, candidates: Sequence[Layout]) -> SegmentationDataset:
    for layout, home in _homes(root, split, candidates):
        labels = label_set(layout.labels)
        if not layout.looks_published(home, split):
            logger.warning(
                "%s lies in the folders of %s and is read with its %d classes, though the files have other names. "
                "For own classes write their names into %s, one on each line",
                home,
                layout.name,
                len(labels),
                root / FILES[1],
            )
        return SegmentationDataset(layout.find(home, split), labels.class_names, palette=labels.palette)
    if own_folders(root, split) is not None and len(candidates) > 1:
        raise ValueError(
            f"{root} looks like own data, but its classes are not known; write their names into {root / FILES[1]}, one "
            "on each line, or give class_names"
        )
    looked = [
        f"  {layout.name}: {' + '.join(layout.splits[split]) if split in layout.splits else 'has no such split'}"
        for layout in candidates
    ]
    if len(candidates) > 1:
        looked.append(f"  {OWN}: {own_text(split)}, with {' or '.join(FILES)}")
    raise FileNotFoundError(f"{root} holds no split {split!r}; looked for\n" + "\n".join(looked))


def _homes(root: Path, split: str, candidates: Sequence[Layout]) -> Iterator[tuple[Layout, Path]]:
    """Give the layouts that hold a split below a folder, and where; one that is the only candidate was asked for."""
    for layout in candidates:
        home = layout.home(root, split, is_named=len(candidates) == 1)
        if home is not None:
            yield layout, home


def _holds(root: Path, parts: Sequence[str], candidates: Sequence[Layout]) -> bool:
    """Whether a folder has the folders of some part, in any layout."""
    is_own = any(own_folders(root, part) is not None for part in (*parts, "test"))
    return is_own or any(True for part in parts for _ in _homes(root, part, candidates))


def _open_own(root: Path, split: str, classes: ClassList | None, *, test_stands_in: bool) -> SegmentationDataset:
    if classes is None:
        raise ValueError(
            f"the classes of {root} are not known; write their names into {root / FILES[1]}, one on each line, or give "
            "class_names"
        )
    if split == "val":
        folders = find_part("val", partial(own_folders, root), root, test_stands_in=test_stands_in)
    else:
        folders = own_folders(root, split)
    if folders is None:
        raise FileNotFoundError(f"{root} holds no split {split!r}; looked for {own_text(split)}")
    return SegmentationDataset(own_files(*folders, classes), classes.names, palette=classes.palette)


def _own_classes(
    root: Path,
    class_names: Sequence[str] | str | PathLike[str] | None,
    palette: Palette | None,
    *,
    files: tuple[str, ...],
) -> ClassList | None:
    """Return the classes given, or those of the folder, or None."""
    if class_names is not None:
        return _given_classes(class_names, palette)
    found = find_class_list(root, files)
    if palette is None:
        return found
    if found is None:
        raise ValueError("a palette needs the names of its classes; give class_names, too")
    return _given_classes(found.names, palette)


def _given_classes(class_names: Sequence[str] | str | PathLike[str], palette: Palette | None) -> ClassList:
    """Return a class list from names or from a file of them."""
    listed = given_class_list(class_names)
    return listed if palette is None else ClassList(listed.names, colors(palette, "palette"), listed.ignored_colors)
