"""Talloen et al. 2021, table 1: a Hebbian convolution under a trained head, and its controls; 91.44 on Fashion-MNIST.

python experiments/fashion_mnist_cnn.py --dataset fashion_mnist --data-dir DIR --json FILE --figure FILE
"""

import sys

from hebbjax.cli import leave, run_job
from hebbjax.jobs import cnn

if __name__ == '__main__':
    leave(run_job(cnn.Config, cnn.run, sys.argv[1:], 'fashion_mnist_cnn.py'))
