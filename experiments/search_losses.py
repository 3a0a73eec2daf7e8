"""Miconi 2021, the discussion: "to search over possible loss expressions (as functions of x, y, w ...)", on the digits.

    python experiments/search_losses.py --json FILE --figure search.png

An expression is a sum of four monomials, `s = sum_k c_k sum_d x_d^a y^b w_d^c`; units learn by the gradient of
`-1/2 sum s^2` with y, a soft winner-take-all, in the place of s. 256 expressions of 20 generations, judged as the
settings of evolve_digits.py, in the same network. Rows:

    untrained, image patches   units as they start: drawn, or training images
    hebb, instar, oja          the paper's three losses
    found                      the best expression of the last generation

The rate of every loss, the found one's as well, is the best of 24 on validation (expressions are searched for at one).
The test split is read once, by seeds that nothing was chosen on.
"""

import dataclasses
import sys
import time

import common
import evolve_digits
import jax
import jax.numpy as jnp

from hebbjax import learned, rules
from hebbjax.cli import flags
from hebbjax.learned.expressions import Expression


@dataclasses.dataclass(frozen=True)
class Config(evolve_digits.Shared):
    """What the search can be told."""

    epochs: flags.Count = 5  # Hebbian epochs, over which the rate falls linearly to 0
    terms: flags.Count = 4  # Monomials of an expression
    temperature: flags.number(above=0) = 0.3  # Of y = softmax(u / temperature)
    rate: flags.Rate = 0.3  # Largest change of a weight in the first step, while expressions are searched for


LOSSES = {
    'hebb': Expression(jnp.array([1.0]), jnp.array([[1, 0, 1]])),
    'instar': Expression(jnp.array([1.0, -0.5]), jnp.array([[1, 0, 1], [0, 0, 2]])),
    'oja': Expression(jnp.array([1.0, -0.5]), jnp.array([[1, 0, 1], [0, 1, 2]])),
}


def experiment(settings: Config) -> bool:
    """Search, choose all rates, read the test split, report."""
    train = tuple(map(jnp.asarray, common.load('digits', 'train', settings.data_dir)))
    learn_by = lambda theta: rules.taylor(theta, rules.soft_wta(settings.temperature))  # noqa: E731

    def objective(theta, key):
        return evolve_digits.validation_loss(settings, learn_by(theta), settings.rate, key, train)

    how = {'population': settings.population, 'generations': settings.generations, 'at_once': settings.at_once}
    how |= {'terms': settings.terms, 'watch': evolve_digits.watch('expressions')}
    started = time.perf_counter()
    found = learned.search_losses(objective, jax.random.key(0), **how)
    seconds = time.perf_counter() - started
    common.tell(f'{learned.expression_text(found.theta)}, {found.fitness.size} trainings in {seconds:.0f} s')
    rows = {'untrained': (None, 0.0, 0.0), 'image patches': (None, 0.0, 0.0, 'patches')}
    for name, expression in {**LOSSES, 'found': found.theta}.items():
        rule, started = learn_by(learned.to_theta(expression)), time.perf_counter()
        rate = evolve_digits.choose_rate(settings, rule, train)
        spent = time.perf_counter() - started + (seconds if name == 'found' else 0)
        rows[f'{name}: {learned.expression_text(expression)}, rate {rate:.2g}'] = rule, rate, spent
    table = evolve_digits.measure_rows(settings, rows, train)
    common.report_measures(settings, table, f'digits, {settings.features} units, accuracy in percent')
    figure = evolve_digits.draw_generations({'expressions': found.fitness}, 'A search over losses on digits')
    common.write_figure(settings.figure, figure)
    return False


def main(argv=None) -> int:
    """Run the experiment, and give its exit code."""
    return common.run(experiment, Config(), argv, 'search_losses.py')


if __name__ == '__main__':
    sys.exit(main())
