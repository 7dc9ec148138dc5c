from .batches import BatchSplit as BatchSplit
from .checkpoint import Checkpoint as Checkpoint
from .checkpoint import Checkpoints as Checkpoints
from .history import TrainerCallbacks as TrainerCallbacks
from .history import TrainingRun as TrainingRun
from .run import train as train
from .sweep import sweep_prompts as sweep_prompts
from .trainer import Trainer as Trainer
