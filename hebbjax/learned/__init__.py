"""Rules that are learned: trainings unrolled, what they are judged by, coefficients found by gradient or evolution."""

from hebbjax.learned.evolve import Evolved, Strategy, evolve_rule, gaussian  # noqa: I001
from hebbjax.learned.expressions import Expression, expression_text, search_losses, to_theta
from hebbjax.learned.fit import RuleFit, fit_rule
from hebbjax.learned.objectives import (
    held_out_accuracy, held_out_error, ridge_outputs, trajectory_error, win_inequality,
)  # fmt: skip
from hebbjax.learned.unroll import run_steps

__all__ = [
    'Evolved', 'Expression', 'RuleFit', 'Strategy', 'evolve_rule', 'expression_text', 'fit_rule', 'gaussian',
    'held_out_accuracy', 'held_out_error', 'ridge_outputs', 'run_steps', 'search_losses', 'to_theta',
    'trajectory_error', 'win_inequality',
]  # fmt: skip
