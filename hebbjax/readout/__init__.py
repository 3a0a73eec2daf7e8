"""Classifiers on what a network answers: ridge regression, heads and layers trained by gradient, probes."""

from hebbjax.readout.gradient import GradientEpoch, GradientResult, GradientSnapshot, cross_entropy, fit_gradient  # noqa: I001
from hebbjax.readout.dual import fit_dual, ridge_outputs
from hebbjax.readout.head import Dropout, forward_train, gradient_layer, linear_head
from hebbjax.readout.hybrid import GradientStage, HybridResult, fit_hybrid, predict_hybrid
from hebbjax.readout.probe import (
    Probe, ProbeFit, gradient_probe, probe_accuracy, probe_confusion, probe_features, quadrants, ridge_probe,
)  # fmt: skip
from hebbjax.readout.ridge import (
    Ridge, RidgeChoice, RidgeStats, add_batch, choose_ridge, fit_ridge, predict_ridge, ridge_accuracy, ridge_stats,
    solve_ridge,
)  # fmt: skip
from hebbjax.readout.schedules import Milestones, Schedule

__all__ = [
    'Dropout', 'GradientEpoch', 'GradientResult', 'GradientSnapshot', 'GradientStage', 'HybridResult', 'Milestones',
    'Probe', 'ProbeFit', 'Ridge', 'RidgeChoice', 'RidgeStats', 'Schedule', 'add_batch', 'choose_ridge',
    'cross_entropy', 'fit_dual', 'fit_gradient', 'fit_hybrid', 'fit_ridge', 'forward_train', 'gradient_layer',
    'gradient_probe', 'linear_head', 'predict_hybrid', 'predict_ridge', 'probe_accuracy', 'probe_confusion',
    'probe_features', 'quadrants', 'ridge_accuracy', 'ridge_outputs', 'ridge_probe', 'ridge_stats', 'solve_ridge',
]  # fmt: skip
