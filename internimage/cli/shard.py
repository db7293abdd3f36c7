"""`internimage shard`: a data set of many files as a few tar files, which disks and networks read faster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from internimage.cli.data_folder import data_folder
from internimage.cli.terminal import JsonOption, note, print_fields, print_json, progress


def shard(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Data set of a classifier.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the shards.", show_default=False)],
    size: Annotated[int, typer.Option("--size", min=1, help="Largest size of a shard in MiB.")] = 512,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, help="Shuffle the images with this seed; default: as listed.", show_default=False
        ),
    ] = None,
    max_unreadable: Annotated[
        int, typer.Option("--max-unreadable", min=0, help="Images that may be left out because they cannot be read.")
    ] = 50,
    as_json: JsonOption = False,
) -> None:
    """Write the data set of a classifier as tar shards.

    Classes, labels and image files stay what they are. Run it again to go on after it was cut.
    """
    data = data_folder(data, "DATA")
    from internimage.data.readers.shards.write import ShardSettings, write_shards

    with progress("images", None) as advance:
        index = write_shards(data, out, ShardSettings(size << 20, seed, max_unreadable), progress=advance)
    for reason in index.left_out:
        note(f"left out: {reason}")
    if as_json:
        print_json(index.to_plain())
        return
    rows = {
        name: f"{sum(shard.images for shard in shards)} images in {len(shards)} shards"
        for name, shards in index.by_name.items()
    }
    print_fields({"classes": len(index.class_names), **rows}, title=str(out))
