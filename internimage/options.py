"""What is chosen by name in Python and on the command line, which shows the choices without loading torch."""

from typing import Literal

Part = Literal["train", "val", "test"]
Metric = Literal["coco", "lvis", "voc2007", "voc2012", "openimages", "crowdhuman"]
Merging = Literal["soft_nms", "nms", "fusion"]
Start = Literal["auto", "published", "recipe"]
