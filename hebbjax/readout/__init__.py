"""Classifiers on what a network answers: ridge regression, heads and layers trained by gradient, probes."""

from hebbjax.readout.gradient import GradientEpoch, GradientResult, GradientSnapshot, fit_gradient  # noqa: I001
from hebbjax.readout.dual import fit_dual, ridge_outputs
from hebbjax.readout.head import Dropout, forward_train, gradient_layer, linear_head
from hebbjax.readout.hybrid import GradientStage, HybridResult, fit_hybrid, predict_hybrid
from hebbjax.readout.linear import LinearClassifier, PenaltyChoice, linear_accuracy, predict_linear
from hebbjax.readout.linear_probe import ridge_probe, softmax_probe
from hebbjax.readout.probe import (
    Probe, ProbeFit, gradient_probe, probe_accuracy, probe_confusion, probe_features, quadrants,
)  # fmt: skip
from hebbjax.readout.ridge import RidgeStats, add_batch, choose_ridge, fit_ridge, ridge_stats, solve_ridge
from hebbjax.readout.schedules import Milestones, Schedule
from hebbjax.readout.softmax import fit_softmax

__all__ = [
    'Dropout', 'GradientEpoch', 'GradientResult', 'GradientSnapshot', 'GradientStage', 'HybridResult',
    'LinearClassifier', 'Milestones', 'PenaltyChoice', 'Probe', 'ProbeFit', 'RidgeStats', 'Schedule', 'add_batch',
    'choose_ridge', 'fit_dual', 'fit_gradient', 'fit_hybrid', 'fit_ridge', 'fit_softmax',
    'forward_train', 'gradient_layer', 'gradient_probe', 'linear_accuracy', 'linear_head', 'predict_hybrid',
    'predict_linear', 'probe_accuracy', 'probe_confusion', 'probe_features', 'quadrants', 'ridge_outputs',
    'ridge_probe', 'ridge_stats', 'softmax_probe', 'solve_ridge',
]  # fmt: skip
