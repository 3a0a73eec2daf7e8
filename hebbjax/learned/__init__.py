"""Rules that are learned: trainings unrolled, what they are judged by, coefficients found by gradient."""

from hebbjax.learned.fit import RuleFit, fit_rule  # noqa: I001
from hebbjax.learned.objectives import (
    held_out_accuracy, held_out_error, ridge_outputs, trajectory_error, win_inequality,
)  # fmt: skip
from hebbjax.learned.unroll import run_steps

__all__ = [
    'RuleFit', 'fit_rule', 'held_out_accuracy', 'held_out_error', 'ridge_outputs', 'run_steps', 'trajectory_error',
    'win_inequality',
]  # fmt: skip
