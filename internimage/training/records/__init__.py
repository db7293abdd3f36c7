"""What a run writes down and leaves behind: metrics.csv, the plot, trackers, its log, its environment, its result."""

from internimage.training.records.rows import Records as Records
from internimage.training.records.rows import TrainingResult as TrainingResult
