"""A network beside its controls, over seeds: Hebbian features, features as initialised, the backprop twin, raw pixels.

    entries = {
        'untrained': Entry((layer,), gradient_probe(head, schedule)),
        'hebbian': Entry((layer,), gradient_probe(head, schedule), stages=(Stage(60),), batch=100),
        'backprop': Entry((twin,), gradient_probe(head, schedule, start=0)),
    }
    trained, interrupted = train_entries(entries, 3, train, validation)
    rows = score_entries(entries, trained, test)

Every choice is made on validation images. The test split is read once, with networks that are finished.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hebbjax import diagnostics
from hebbjax.base import AnyArray, Array, Key, Labelled
from hebbjax.layers.chain import apply_chain
from hebbjax.layers.initializers import fan_in
from hebbjax.layers.layer import Layer, LayerState, layer_patches, matmul_drives, settled_drive, to_intensities
from hebbjax.layers.network import Network, TrainState, init
from hebbjax.layers.patches import PATCH_TRANSFORMS
from hebbjax.readout.probe import Probe, ProbeFit, gradient_probe, probe_accuracy
from hebbjax.readout.schedules import Schedule
from hebbjax.rules.local import count_wins
from hebbjax.rules.top_k import top_k
from hebbjax.support import checks, specs
from hebbjax.training.controls import begin_layer, controlled
from hebbjax.training.hosts import take_part
from hebbjax.training.loop import fit
from hebbjax.training.presets import Recipe, Twin
from hebbjax.training.stages import Stage, learning_layers

JUDGE_SALT = 0xE7A1  # folded into a key for what a classifier draws, beside those of learning
SEEN = 10_000  # training images that a finished network answers: features of all would take as long as learning


class Entry(NamedTuple):
    """One network of a comparison, and how it comes by its features."""

    net: Network  # below the classifier; none: it reads pixels
    probe: ProbeFit  # fits the classifier, alone or (the backprop twin) together with the layers
    stages: tuple[Stage, ...] = ()  # of Hebbian learning; none: features stay as initialised
    batch: int = 100  # images per Hebbian step
    start: Callable[[Layer, Key, Array], Array] | None = None
    """(layer, key, images that reach it as its first stage begins) -> first weights of a layer; None: drawn."""
    shown: int | None = None  # of training images, the first that Hebbian stages learn from; None: all
    seeds: int | None = None  # at most so many; None: as many as the others
    p: float = 2.0  # norms of filters are judged by `sum_d |w_id|^p`
    paper: float | None = None  # percent that a paper reports; None: none


class Trained(NamedTuple):
    """A network of one seed that is ready to be judged."""

    probe: Probe
    train_accuracy: float  # percent, of the first 10,000 images at most
    validation_accuracy: float
    seconds: float
    compile_seconds: float


@dataclasses.dataclass
class ResultRow:
    """One row of results: a network, one number per seed."""

    row: str  # its name
    test_accuracy: list[float] = dataclasses.field(default_factory=list)  # percent, one per seed
    train_accuracy: list[float] = dataclasses.field(default_factory=list)
    paper: float | None = None  # percent that a paper reports
    seconds: float = 0.0  # run time of one seed, mean, compile time apart
    compile_seconds: float = 0.0
    more: dict[str, Any] = dataclasses.field(default_factory=dict)  # further columns, as they go into the JSON

    def as_json(self) -> dict:
        """Give the row as a flat dictionary."""
        flat = dataclasses.asdict(self)
        return flat | flat.pop('more')


def under_head(
    layer: Layer, make_head: Callable[..., Layer], schedule: Schedule, twin: Twin, *, threshold: float,
    twin_seeds: int | None, epochs: int, batch: int, start: Callable | None, p: float, **how: Any,
) -> dict[str, Entry]:  # fmt: skip
    """Make the entries of a layer that learns under a head trained by gradient, and of its controls.

    Args:
        layer: sends its drives as they are: it is the head that normalises, rectifies and pools them.
        make_head: settings of `linear_head` in the place of those that were chosen -> a head.
        threshold: of heads on filters that stay as they are.
        twin_seeds, epochs, batch, start, p: `seeds` of the twin, epochs, and what else `Entry` takes, of the layer.
        how: of all training by gradient, see `gradient_probe`; the twin's images pass what it says.
    """
    probe = functools.partial(gradient_probe, **how)
    untrained = Entry((layer,), probe(make_head(threshold=threshold), schedule), start=start, p=p)
    hebbian = untrained._replace(stages=(Stage(epochs),), batch=batch)
    # drawn as deep-learning users draw
    prepare, moves = PATCH_TRANSFORMS[twin.patch_transform], {'augment': twin.augment}
    plain = dataclasses.replace(layer, patch_transform=prepare, output='weights', init=fan_in)
    end_to_end = gradient_probe(make_head(threshold=twin.threshold), twin.schedule, 0, **how | moves)
    return {
        'raw_pixels': Entry((), probe(make_head(norm=False, power=None, pool=None, dropout=0.0), schedule)),
        'untrained': untrained,
        'hebbian': hebbian,
        'backprop': Entry((plain,), end_to_end, seeds=twin_seeds, p=p),
        **{kind: controlled(hebbian, kind) for kind in ('patches', 'gaussian')},
    }


def initial_state(entry: Entry | Recipe, key: Key, images: AnyArray) -> TrainState:
    """Make the first state of a network; the same key gives all entries the same first weights."""
    state = init(entry.net, key, images.shape[1:])
    return state if entry.start is None else begin_layer(entry.net, state, 0, key, images, entry.start)


def learn(entry: Entry, key: Key, train: Labelled, callbacks=(), mesh=None) -> tuple[TrainState, float, float]:
    """Go through an entry's Hebbian stages. -> its state, seconds, and those of compiling. Ctrl-C is raised."""
    state, seconds, compile_seconds = initial_state(entry, key, train[0]), 0.0, 0.0
    shown: Any = tuple(part[: entry.shown] for part in train)
    how = {'batch': entry.batch, 'callbacks': callbacks, 'watch': None, 'mesh': mesh}
    begun = 1 if entry.start is not None else len(entry.net)  # the lowest layer began with the state
    # layers that start from what reaches them wait for those below
    for stages in (*((stage,) for stage in entry.stages), ()) if entry.start is not None else (entry.stages,):
        learning = [number for stage in stages for number, it in enumerate(learning_layers(stage, entry.net)) if it]
        for number in range(begun, 1 + max(learning, default=len(entry.net) - 1)):
            state, begun = begin_layer(entry.net, state, number, key, shown[0], entry.start), number + 1
        if stages:
            result = fit(entry.net, state, *take_part(shown, mesh), stages=stages, **how)
            if result.interrupted:
                raise KeyboardInterrupt
            state, seconds = result.state, seconds + result.seconds
            compile_seconds += result.compile_seconds
    return state, seconds, compile_seconds


def train_entry(entry: Entry, seed: int, train: Labelled, validation: Labelled, *, callbacks=(), mesh=None) -> Trained:
    """Train one network on one seed: Hebbian stages, then its classifier. Ctrl-C is raised."""
    layer_key, probe_key = jax.random.split(jax.random.key(seed))
    states, seconds, compile_seconds = (), 0.0, 0.0
    if entry.net:
        state, seconds, compile_seconds = learn(entry, layer_key, train, callbacks, mesh)
        states = state.layers
    network = judge(entry.probe(entry.net, states, probe_key, train, validation), train, validation)
    compile_seconds += network.compile_seconds
    return network._replace(seconds=seconds + network.seconds, compile_seconds=compile_seconds)


def judge(probe: Probe, train: Labelled, validation: Labelled) -> Trained:
    """Judge a finished classifier on images that it was fitted to, 10,000 at most, and on validation images."""
    accuracies = (probe_accuracy(probe, *data) for data in (tuple(part[:SEEN] for part in train), validation))
    return Trained(probe, *accuracies, probe.seconds, probe.compile_seconds)


def train_entries(
    entries: Mapping[str, Entry], seeds: int, train: Labelled, validation: Labelled, *,
    on_trained: Callable[[str, int, Trained], None] = lambda name, seed, trained: None,
    callbacks: Callable[[str, int], tuple] = lambda name, seed: (), mesh: Mesh | None = None, first: int = 0,
) -> tuple[dict[tuple[str, int], Trained], bool]:  # fmt: skip
    """Train every network on every seed, one after the other, until done or interrupted.

    Seeds are `first`, `first + 1`, ...; each draws weights, order and dropout anew. Every choice is made on validation
    images. `on_trained` is called with name, seed and network whenever one is finished; `callbacks`: (name, seed) ->
    those of the Hebbian loop, to which stages that start from what reaches them are a training each.
    -> (name, seed) -> network, and whether the user ended it early.
    """
    # whatever does not fit is refused, naming the entry, before the first hour of training; nothing is computed
    checks.check_count('seeds', seeds)
    for name, entry in entries.items():
        try:
            make_state = functools.partial(initial_state, entry, images=train[0])
            states = jax.eval_shape(make_state, jax.random.key(0)).layers if entry.net else ()
            for stage in entry.stages:
                learning_layers(stage, entry.net)
            seen = min(entry.shown or len(train[0]), len(train[0]))
            checks.check_count('batch', entry.batch, 1, *([seen] if entry.stages else []))
            if hasattr(entry.probe, 'check'):
                entry.probe.check(entry.net, states, train, validation)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from None
    trained = {}
    try:
        for seed in range(first, first + seeds):
            for name, entry in entries.items():
                if entry.seeds is None or seed - first < entry.seeds:
                    how = {'callbacks': callbacks(name, seed), 'mesh': mesh}
                    trained[name, seed] = train_entry(entry, seed, train, validation, **how)
                    on_trained(name, seed, trained[name, seed])
    except KeyboardInterrupt:
        return trained, True
    return trained, False


def score_entries(
    entries: Mapping[str, Entry], trained: Mapping[tuple[str, int], Trained], test: Labelled,
    sample: AnyArray | None = None,
) -> list[ResultRow]:  # fmt: skip
    """Read the test split, images and labels, with every network that `train_entries` reached: no choice is left to
    make. `sample`: a few hundred images that neurons of the lowest layer compete on, see `diversity`; None: left out.
    """
    rows = []
    for name, entry in entries.items():
        results = [result for (row, _), result in trained.items() if row == name]
        if not results:
            continue
        of_all = lambda field, results=results: [getattr(result, field) for result in results]  # noqa: E731
        accuracies = [probe_accuracy(result.probe, *test) for result in results], of_all('train_accuracy')
        times = (float(np.mean(of_all(field))) for field in ('seconds', 'compile_seconds'))
        more = {'validation_accuracy': of_all('validation_accuracy')}
        more['readout_seconds'] = [result.probe.seconds for result in results]
        if results[0].probe.penalties:
            more['penalties'] = [result.probe.penalties for result in results]
        if curve := results[0].probe.curve:  # one seed's stands for all
            more['epoch'] = [result.probe.kept + 1 for result in results]
            more['curve'] = {part: [100 * getattr(line, part) for line in curve] for part in ('train', 'validation')}
        if sample is not None and entry.net:
            measures = [diversity(entry.net[0], result.probe.layers[0], sample, entry.p) for result in results]
            more |= {measure: [float(values[measure]) for values in measures] for measure in measures[0]}
        rows.append(ResultRow(name, *accuracies, entry.paper, *times, more))
    return rows


@specs.compiled_once('layer')
def diversity(layer: Layer, state: LayerState, images: Array, p: float = 2.0) -> dict[str, Array]:
    """Say whether a bank of filters has collapsed: winners and their entropy on a few hundred images, cosines, and the
    share of neurons whose norm `sum_d |w_id|^p` has converged to 1.
    """
    x, w = layer_patches(layer, apply_chain(layer.pre, state.pre, to_intensities(images))[0]), state.w
    x = x.reshape(-1, w.shape[1])
    u = matmul_drives(layer, x, layer.rule.effective_weights(w))  # [P, N]
    winner = top_k(u if layer.lateral is None else settled_drive(layer, state, u), 1)[1][:, 0]
    wins, cosine = count_wins(x, winner, len(w)), diagnostics.nearest_cosine(w)
    measures = {'distinct_winners': diagnostics.distinct_winners(wins), 'win_entropy': diagnostics.win_entropy(wins)}
    measures |= {'nearest_cosine_max': cosine.max(), 'nearest_cosine_median': jnp.median(cosine)}
    return measures | {'unit_convergence': diagnostics.unit_convergence(w, p)}
