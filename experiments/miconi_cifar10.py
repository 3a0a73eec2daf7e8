"""Miconi 2021, table 1: three Hebbian layers on CIFAR-10, 64.55 %, untrained networks beside trained ones.

python experiments/miconi_cifar10.py --data-dir DIR --json FILE --figures FOLDER
"""

import sys

from hebbjax.cli import leave, run_job
from hebbjax.jobs import miconi

if __name__ == '__main__':
    leave(run_job(miconi.Config, miconi.run, sys.argv[1:], 'miconi_cifar10.py'))
