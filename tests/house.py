"""The plan of the house: rooms, levels, stations, ways. Tests keep the code to it; docs/architecture.md shows it.

`python -m tests.house` writes the generated parts of docs/architecture.md anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import internimage

PACKAGE = Path(internimage.__file__).parent
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"


@dataclass(frozen=True)
class Room:
    """A file or a folder at the top of the package.

    Args:
        level: it imports from rooms of lower levels only.
        holds: what is in it.
    """

    level: int
    holds: str


ROOMS = {
    "types": Room(0, "what travels: images, results, targets"),
    "errors": Room(0, "the exceptions, and texts of others that are safe to print"),
    "files": Room(0, "atomic writes, reads of limited size, locks, strict JSON"),
    "lazy": Room(0, "names that are imported at first use"),
    "options": Room(0, "choices by name, which the command line shows without loading torch"),
    "moved": Room(0, "old names of modules and functions, which work for one more release"),
    "processors": Room(0, "how many processors there are to use, and whether they are busy"),
    "parallel": Room(0, "what processes that train together share: whose images, counts of the whole batch"),
    "version": Room(0, "the version"),
    "launch": Room(1, "how several processes are started, know of one another, and end together"),
    "ranges": Room(1, "which values a setting may have, written beside its field"),
    "settings": Room(1, "settings as plain values and as texts, and back"),
    "ops": Room(1, "tensors in, tensors out; no parameters; the only home of kernels"),
    "layers": Room(2, "small modules that two or more networks share"),
    "data": Room(2, "files to images and ground truth; knows no model"),
    "visualize": Room(3, "results drawn on their images"),
    "recipe": Room(3, "what every run states, and what a task says about training"),
    "backbones": Room(3, "the table of sizes, the network, composites"),
    "flow": Room(4, "READ FIRST: the pipeline that every model obeys, and what a task is"),
    "evaluation": Room(5, "metrics as functions, and the loop that can be resumed"),
    "checkpoints": Room(5, "from a name or a file to weights and what describes them, and back"),
    "classification": Room(6, "a task: image classifiers"),
    "detection": Room(6, "a task: detectors of the R-CNN family, DINO"),
    "segmentation": Room(6, "a task: UperNet, SegFormer head, Mask2Former"),
    "tasks": Room(7, "the only list of tasks"),
    "exporting": Room(8, "models to files that other runtimes run, and these files run"),
    "hub": Room(9, "create, load, evaluate, convert, inspect: short, over the list of tasks"),
    "training": Room(10, "the loop of training, its state and its records"),
    "serving": Room(10, "models behind HTTP: queues, worker processes, limits, metrics, and a page to try them"),
    "cli": Room(11, "argv in, exit code out"),
    "__init__": Room(11, "the public names, imported at first use"),
    "__main__": Room(12, "python -m internimage"),
}

# Folders inside a room that a newcomer should know, for the map.
INNER = {
    "ops/deform_conv_v3": "interface, reference, kernel_cpp, kernel_triton; deform_attn likewise; serves dcnv4",
    "ops/fused": "what stands around an operator in one pass: norms, residual sums, GELU, packed linear layers",
    "ops/runtime": "what kernels run on: shared C++ headers, the loader, functions for Triton",
    "layers/fused": "inference twins, which `fuse()` puts in the place of layers",
    "data/images": "reading, channels, value ranges, normalizing",
    "data/readers": "formats of data sets",
    "data/readers/shards": "data sets in tar and zip files: read where they lie, and written",
    "data/untrusted": "files from outside: limits, damaged content, what is broken",
    "backbones/original": "names and settings of the original backbones, and how they show in a checkpoint",
    "checkpoints/formats": "files of torch, of Transformers, of OpenMMLab; what keeps hostile ones out",
    "exporting/graphs": "a model as a graph of tensors with its description, traced in operators that others know",
    "training/parallel": "several processes: engines on accelerate and FSDP2, layers that see the whole batch",
    "training/records": "what a run writes down: rows and curves, trackers, its log, its environment",
}

# What a task's folder may hold, in the order in which files may import from one another: upstream only.
# What is not named belongs to NETWORKS: networks and their losses.
NETWORKS = "networks and losses"
STATIONS = (
    ("preprocess",),
    ("config",),
    (NETWORKS,),
    ("postprocess",),
    ("model", "presets"),
    ("batches",),
    ("graph",),
    ("report", "evaluate", "tta", "box_merging", "submission", "worst_images", "speed"),
    ("published",),
    ("original",),
    ("creation",),
    ("training",),
    ("task",),
)
TASK_FOLDERS = ("classification", "detection", "segmentation")


# What a newcomer reads, in this order: each file imports an earlier one or is imported by it.
WAYS = {
    "The way of an image": {
        "`model.predict([image])`": (
            ("flow/model.py", "`TaskModel`: what every model does, in order"),
            ("detection/rcnn/model.py", "one of the models"),
            ("detection/model.py", "what it shares with the others of its task: the stations"),
            ("detection/preprocess.py", "image to pixels"),
            ("data/images/read.py", "a file of any kind to an image"),
            ("backbones/internimage.py", "pixels to four maps"),
            ("layers/deform_conv.py", "the layer that the backbone is built of"),
            ("ops/deform_conv_v3/interface.py", "its operator: checks, and the choice of a kernel"),
            ("detection/postprocess.py", "raw outputs to a result in terms of the original image"),
            ("types.py", "the result"),
        ),
        "`ii.evaluate(model, data)`": (
            ("hub/evaluation.py", "one call for all tasks"),
            ("tasks.py", "the list of tasks"),
            ("detection/task.py", "one of them"),
            ("detection/evaluate.py", "opens the data, runs, computes, reports"),
            ("data/readers/open_objects.py", "finds out the format of the data"),
            ("evaluation/run.py", "one pass over the images"),
            ("evaluation/record_log.py", "keeps what was found, so that a cut pass goes on"),
            ("evaluation/object_metrics.py", "ground truth and predictions to metrics"),
            ("evaluation/coco.py", "one of the metrics"),
            ("detection/report.py", "metrics beside the published ones"),
        ),
    },
    "The way of a checkpoint": {
        "`ii.load(name)`": (
            ("hub/load.py", "opens, recognizes, builds, fills"),
            ("hub/opening.py", "a name to an open file"),
            ("checkpoints/catalog.py", "the published checkpoints"),
            ("checkpoints/download.py", "the file of a row, from this machine or the network"),
            ("checkpoints/read.py", "which kind of file it is"),
            ("checkpoints/formats/torch_files.py", "a file of the original, read without running anything in it"),
            ("tasks.py", "asks each task whether the model is its own"),
            ("detection/original/recognition.py", "a checkpoint to the configuration of its model"),
            ("checkpoints/fill.py", "tensors into parameters"),
            ("checkpoints/rename.py", "the original's names to ours"),
        ),
        "`ii.create(architecture)`": (
            ("hub/create.py", "finds the task of the architecture"),
            ("tasks.py", "the list of tasks"),
            ("detection/task.py", "one of them"),
            ("detection/creation.py", "what is asked for to a configuration"),
            ("backbones/choice.py", "which backbone"),
            ("backbones/config.py", "the table of sizes"),
            ("detection/presets.py", "a configuration to a model"),
        ),
    },
    "The way of a recipe": {
        "`train(recipe, data=..., out=...)`": (
            ("training/loop.py", "the run: resume, steps, validations, records"),
            ("training/recipes.py", "a name or a YAML file to a recipe"),
            ("recipe/recipe.py", "what every recipe states, and how its settings are changed"),
            ("detection/training/recipe.py", "what a task adds"),
            ("detection/training/recipes.py", "the published ones, literally"),
            ("training/setup.py", "a recipe and data to a model with start weights and batches"),
            ("recipe/task.py", "what a task says about training"),
            ("detection/training/procedure.py", "one of them: batches, losses, validation"),
            ("training/optim.py", "groups of parameters and their rates"),
            ("training/state.py", "what a run keeps to go on"),
        ),
    },
}


def station(relative: Path) -> int | None:
    """Return the place of a task's file in `STATIONS`, None for the facade `__init__.py`."""
    parts = relative.with_suffix("").parts[1:]
    if parts == ("__init__",):
        return None
    places = {name: place for place, names in enumerate(STATIONS) for name in names}
    return places.get(parts[0], places.get(parts[-1], places[NETWORKS]))  # rcnn/model.py is a model


def the_map() -> str:
    """Return the rooms by level, each with its sentence."""
    width = max(len(name) for name in [*map(shown, ROOMS), *INNER]) + 4
    lines = ["internimage/"]
    for level in sorted({room.level for room in ROOMS.values()}):
        lines.append(f"level {level}")
        for name, room in ROOMS.items():
            if room.level == level:
                lines.append(f"  {shown(name):<{width}} {room.holds}")
                lines += [
                    f"    {inner + '/':<{width - 2}} {INNER[inner]}" for inner in INNER if inner.startswith(f"{name}/")
                ]
    return "```\n" + "\n".join(lines) + "\n```"


def the_stations() -> str:
    """Return the stations of a task's folder, upstream first."""
    return " → ".join(
        " ".join(names if names == (NETWORKS,) else [f"`{name}`" for name in names]) for names in STATIONS
    )


def the_ways() -> str:
    """Return the lists of files to read."""
    text = []
    for title, ways in WAYS.items():
        text.append(f"### {title}\n")
        for call, files in ways.items():
            text.append(f"{call}:\n")
            text += [f"{number}. `{file}`: {what}" for number, (file, what) in enumerate(files, 1)]
            text.append("")
    return "\n".join(text).rstrip()


def shown(name: str) -> str:
    """Return a room as it is called in the tree."""
    return f"{name}/" if (PACKAGE / name).is_dir() else f"{name}.py"


GENERATED = {"map": the_map, "stations": the_stations, "ways": the_ways}


def with_generated_parts(text: str) -> str:
    """Return the page with its generated parts, which stand between two comments, as they should be."""
    for name, write in GENERATED.items():
        start, end = f"<!-- {name}: written by python -m tests.house -->\n", f"\n<!-- end of {name} -->"
        before, rest = text.split(start)
        text = before + start + write() + end + rest.split(end, 1)[1]
    return text


if __name__ == "__main__":
    PAGE.write_text(with_generated_parts(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
