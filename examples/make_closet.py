"""Compose the closet data set: garments of Fashion-MNIST on photographs, with boxes, masks and label maps.

python examples/make_closet.py --fashion-mnist FOLDER --out closet
"""

import argparse
from pathlib import Path

from rich.progress import Progress

from internimage.data.closet import write_closet

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--fashion-mnist", type=Path, required=True, help="folder with the four idx files")
parser.add_argument("--out", type=Path, required=True, help="folder to be made")
parser.add_argument("--train-scenes", type=int, default=2000)
parser.add_argument("--val-scenes", type=int, default=500)
parser.add_argument("--size", type=int, default=192, help="height and width of a scene in pixels")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--photos", type=Path, help="folder with own photographs, used beside those of scikit-image")
options = parser.parse_args()

with Progress() as bar:
    task = bar.add_task("scenes")
    write_closet(
        options.out,
        fashion_mnist=options.fashion_mnist,
        train_scenes=options.train_scenes,
        val_scenes=options.val_scenes,
        size_hw=(options.size, options.size),
        seed=options.seed,
        photos=options.photos,
        progress=lambda done, total: bar.update(task, completed=done, total=total),
    )
