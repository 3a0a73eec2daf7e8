"""A training that is made to be killed: run as a script with a folder, it goes on from the folder's last checkpoint.

It prints a line when a save begins and ends, and the checksum of its weights when it is through.
"""

import sys
import zlib

import jax
import numpy as np
import optax

import hebbjax
from hebbjax import callbacks, loggers, loop, plasticity, rules, stages, train
from hebbjax.monitor import Monitor

EPOCHS = 30
NET = (
    hebbjax.Layer(
        64, rules.krotov(2, 0.4, 3), optax.chain(plasticity.scale_by_max_abs(), plasticity.ascend(0.02)),
        hebbjax.Window(5), glimpses=4, pool=hebbjax.max_pool(2),
    ),
    hebbjax.Layer(
        512, rules.instar(1), plasticity.ascend(0.1), hebbjax.Window(), homeostasis=hebbjax.Homeostasis(0.1)
    ),
)  # fmt: skip


class Saving(callbacks.Checkpoint):
    """A checkpoint that tells when it is being written."""

    def save(self, moment):
        print('save begins', moment.epoch, flush=True)
        super().save(moment)
        print('save ends', moment.epoch, flush=True)


def main(folder):
    images = np.random.default_rng(0).integers(0, 256, (200, 12, 12, 1), np.uint8)
    state, position = train.init(NET, jax.random.key(0), images.shape[1:]), loop.Position()
    keeper = Saving(f'{folder}/checkpoints', keep=2, best='layer1.win_entropy')
    if keeper.kept.epochs():
        state, position = callbacks.resume(keeper.kept, state)
    print('training from', position.epoch, flush=True)
    outcome = loop.fit(
        NET, state, jax.numpy.asarray(images), stages=stages.plan('in_order', NET, EPOCHS), batch=50,
        callbacks=[keeper, loggers.Log(folder, epochs=5)], watch=Monitor(every=2), position=position,
    )  # fmt: skip
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((outcome.state.step, outcome.state.layers))]
    print('weights', zlib.crc32(b''.join(leaf.tobytes() for leaf in leaves)), flush=True)


if __name__ == '__main__':
    main(sys.argv[1])
