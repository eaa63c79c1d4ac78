"""Training: data in, a Fit out."""

from vipack.distributed import DataParallel
from vipack.training.api import check, fit, load
from vipack.training.callbacks import Every, Progress
from vipack.training.checkpoint import Checkpoint
from vipack.training.fitted_guide import FittedGuide
from vipack.training.result import Fit
from vipack.training.simulation_based_calibration import vsbc
from vipack.training.stopping import Converged, TimeLimit
from vipack.training.tensorboard import TensorBoard
from vipack.training.validation import EarlyStopping

__all__ = [
    "Checkpoint",
    "Converged",
    "DataParallel",
    "EarlyStopping",
    "Every",
    "Fit",
    "FittedGuide",
    "Progress",
    "TensorBoard",
    "TimeLimit",
    "check",
    "fit",
    "load",
    "vsbc",
]
