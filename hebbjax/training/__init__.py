"""Training: steps and epochs, stages, the loop with its callbacks, checkpoints, many seeds at once."""

from hebbjax.training.callbacks import Progress, early_stop, evaluate, progress_bar
from hebbjax.training.checkpoint import Checkpoints, load_state, resume, save_state
from hebbjax.training.epoch import make_train_epoch
from hebbjax.training.loggers import Log, Pictures, TensorBoard
from hebbjax.training.loop import START, Callback, CallbackContext, FitResult, Position, fit
from hebbjax.training.monitor import Monitor, Observation, Trace, observe
from hebbjax.training.parallel import count_seeds, init_seeds, over_seeds, take_seed
from hebbjax.training.stages import ORDERS, PLANS, Stage, learning_layers, plan_stages
from hebbjax.training.step import make_train_step, train_step

__all__ = [
    'ORDERS', 'PLANS', 'START', 'Callback', 'CallbackContext', 'Checkpoints', 'FitResult', 'Log', 'Monitor',
    'Observation', 'Pictures', 'Position', 'Progress', 'Stage', 'TensorBoard', 'Trace', 'count_seeds', 'early_stop',
    'evaluate', 'fit', 'init_seeds', 'learning_layers', 'load_state', 'make_train_epoch',
    'make_train_step', 'observe', 'over_seeds', 'plan_stages', 'progress_bar', 'resume', 'save_state',
    'take_seed', 'train_step',
]  # fmt: skip
