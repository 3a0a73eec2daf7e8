"""Krotov & Hopfield 2019: 2000 dense Hebbian units under a classifier, 98.54 on MNIST; Talloen et al. 2021, figure 2.

python experiments/krotov_mnist.py --data-dir DIR --json FILE --figure FILE
"""

import sys

from hebbjax.cli import leave, run_job
from hebbjax.jobs import dense

if __name__ == '__main__':
    leave(run_job(dense.Config, dense.run, sys.argv[1:], 'krotov_mnist.py'))
