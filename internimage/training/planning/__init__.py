"""What a run will need, before it is paid for: memory by strategy, steps, time, communication."""

from internimage.training.planning.plan import Plan as Plan
from internimage.training.planning.plan import plan as plan
