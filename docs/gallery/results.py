"""Numbers that experiments measured, so that no page has one typed by hand."""

import json
import pathlib

import numpy as np

RESULTS = pathlib.Path(__file__).parents[2] / 'experiments' / 'results'


def measured(file, row, measure='test_accuracy'):
    """Read what an experiment measured over its seeds, as mean ± standard deviation, from experiments/results.

    Of several files, with spaces between, each has seeds of its own.
    """
    reports = [json.loads((RESULTS / name).with_suffix('.json').read_text())['rows'] for name in file.split()]
    found = [line for rows in reports for line in rows if line['row'] == row]
    values = np.concatenate([np.atleast_1d(line.get(measure) or line['measures'][measure]) for line in found])
    return f'{values.mean():.4g}' + (f' ± {values.std(ddof=1):.2g}' if len(values) > 1 else '')
