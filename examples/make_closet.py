"""Compose the closet data set: garments of Fashion-MNIST on photographs, with boxes, masks and label maps.

python examples/make_closet.py --fashion-mnist FOLDER --out closet
python examples/make_closet.py --fashion-mnist FOLDER --out crops --crops      # single garments, for classifiers
"""

import argparse
from pathlib import Path

from closet import write_closet, write_crops
from rich.progress import Progress

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--fashion-mnist", type=Path, required=True, help="folder with the four idx files")
parser.add_argument("--out", type=Path, required=True, help="folder to be made")
parser.add_argument("--crops", action="store_true", help="images of single garments in a folder for each class")
parser.add_argument("--train-scenes", type=int, help="default: 2000, 12000 with --crops")
parser.add_argument("--val-scenes", type=int, default=500)
parser.add_argument("--size", type=int, default=192, help="height and width of a scene in pixels")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--photos", type=Path, help="folder with own photographs, used beside those of scikit-image")
options = parser.parse_args()

if options.crops and (options.photos is not None or options.size != 192):
    parser.error("--crops takes neither --photos nor --size")

with Progress() as bar:
    task = bar.add_task("scenes")

    def progress(done: int, total: int) -> None:
        """Show how many scenes are done."""
        bar.update(task, completed=done, total=total)

    common = {"fashion_mnist": options.fashion_mnist, "val_scenes": options.val_scenes, "progress": progress}
    if options.crops:
        write_crops(options.out, train_scenes=options.train_scenes or 12000, seed=options.seed + 1, **common)
    else:
        write_closet(
            options.out,
            train_scenes=2000 if options.train_scenes is None else options.train_scenes,
            size_hw=(options.size, options.size),
            seed=options.seed,
            photos=options.photos,
            **common,
        )
