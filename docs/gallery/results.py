"""Numbers that experiments measured, so that no page has one typed by hand."""

import json
import pathlib

import numpy as np

RESULTS = pathlib.Path(__file__).parents[2] / 'experiments' / 'results'


def measured(file, row, measure='test_accuracy'):
    """Read what an experiment measured over its seeds, as mean ± standard deviation, from experiments/results."""
    rows = json.loads((RESULTS / file).read_text())['rows']
    found = next(line for line in rows if line['row'] == row)
    values = np.atleast_1d(found[measure] if measure in found else found['measures'][measure])
    return f'{values.mean():.4g}' + (f' ± {values.std(ddof=1):.2g}' if len(values) > 1 else '')
