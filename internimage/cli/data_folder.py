"""What a user may give as the data of a command where a folder is meant."""

from __future__ import annotations

from pathlib import Path

import typer

from internimage.cli.terminal import note

READ_ARCHIVES = (".zip", ".tar")  # of classifiers
ARCHIVES = (".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml")


def data_folder(data: Path, option: str) -> Path:
    """Return the folder of a data set from the folder itself or from the file that describes it.

    A `data.yaml` stands for its folder, and so does an annotation file in a folder `annotations` or beside its images
    (`train/_annotations.coco.json`) for the whole data set. Archives that classifiers read are left to them.

    Args:
        data: what the user gave.
        option: what messages call it, for example "--data".

    Raises:
        typer.BadParameter: there is nothing of this name, or it is an archive of another kind or some other file.
    """
    if data.is_dir() or (data.is_file() and data.suffix.lower() in READ_ARCHIVES):
        return data
    if not data.exists():
        raise typer.BadParameter(f"there is no folder {data}", param_hint=option)
    name = data.name.lower()
    if name.endswith(ARCHIVES):
        raise typer.BadParameter(
            f"{data} is an archive; unpack it and give the folder of the data set", param_hint=option
        )
    if name in DESCRIPTIONS:
        folder = data.parent
    elif name == "_annotations.coco.json" or (data.suffix == ".json" and data.parent.name.lower() == "annotations"):
        folder = data.parent.parent
    else:
        raise typer.BadParameter(
            f"{data} is a file; give the folder of the data set, its data.yaml ({', '.join(DESCRIPTIONS)}), or a COCO "
            "file in its folder annotations",
            param_hint=option,
        )
    note(f"takes the data set in {folder}, which {data.name} belongs to")
    return folder
