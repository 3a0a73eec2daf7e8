"""Rules that are learned: trainings unrolled, what they are judged by, coefficients fitted by gradient."""

from hebbjax.learned.objectives import (  # noqa: I001
    held_out_accuracy, held_out_error, ridge_outputs, trajectory_error, win_inequality,
)  # fmt: skip
from hebbjax.learned.unroll import run_steps

__all__ = [
    'held_out_accuracy', 'held_out_error', 'ridge_outputs', 'run_steps', 'trajectory_error', 'win_inequality',
]  # fmt: skip
