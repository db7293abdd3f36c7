"""The pipeline every model obeys (`model`, read it first), and what the house knows of a task's folder (`task`)."""

from internimage.flow.checkpoint import Checkpoint as Checkpoint
from internimage.flow.checkpoint import Settings as Settings
from internimage.flow.checkpoint import Stated as Stated
from internimage.flow.config import ConfigClass as ConfigClass
from internimage.flow.config import ModelConfig as ModelConfig
from internimage.flow.config import TaskConfig as TaskConfig
from internimage.flow.config import on_weights as on_weights
from internimage.flow.evaluation import Report as Report
from internimage.flow.graph import ExportGraph as ExportGraph
from internimage.flow.graph import GraphDescription as GraphDescription
from internimage.flow.graph import GraphOptions as GraphOptions
from internimage.flow.graph import GraphTensor as GraphTensor
from internimage.flow.model import ALL_LEVELS as ALL_LEVELS
from internimage.flow.model import AnyModel as AnyModel
from internimage.flow.model import ImageInput as ImageInput
from internimage.flow.model import Network as Network
from internimage.flow.model import RunOptions as RunOptions
from internimage.flow.model import TaskModel as TaskModel
from internimage.flow.prediction import PredictionOptions as PredictionOptions
from internimage.flow.prediction import Presented as Presented
from internimage.flow.task import AnyTask as AnyTask
from internimage.flow.task import Task as Task
