"""Amato et al. 2019, tables 1 and 2: Hebbian and gradient layers on CIFAR-10 in any mixture.

python experiments/amato_cifar10.py --run FOLDER --markdown tables.md --data-dir DIR      # goes on where it stopped
python experiments/amato_cifar10.py --cell GGHHG-G --subset 2000 --epochs 1               # one network, in a minute
"""

import sys

from hebbjax.cli import leave, run_job
from hebbjax.jobs import amato

if __name__ == '__main__':
    leave(run_job(amato.Config, amato.run, sys.argv[1:], 'amato_cifar10.py'))
