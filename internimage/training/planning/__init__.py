"""What a run will need, before it is paid for: memory by strategy, steps, time, communication."""

from internimage.training.planning.plan import plan as plan
from internimage.training.planning.result import Plan as Plan
