"""Pictures of filters, receptive fields, curves and distributions: a matplotlib Figure each, nothing is shown."""

from hebbjax.plots.curves import Figure, accuracy_curves, activation_curves, margin_curves, metric_curves  # noqa: I001
from hebbjax.plots.distributions import (
    confusion_plot, convergence_plot, weight_histogram, weight_histograms, win_share_plot,
)  # fmt: skip
from hebbjax.plots.filters import filter_grid, filters_side_by_side, receptive_field_grid, receptive_fields

__all__ = [
    'Figure', 'accuracy_curves', 'activation_curves', 'confusion_plot', 'convergence_plot',
    'filter_grid', 'filters_side_by_side', 'margin_curves', 'metric_curves', 'receptive_field_grid',
    'receptive_fields', 'weight_histogram', 'weight_histograms', 'win_share_plot',
]  # fmt: skip
