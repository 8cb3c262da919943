"""What each method is for, seen on the embedded digits: 300 steps of a small dense network, all in one compile."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import td
from td import models
from td.data import load_digits, standardize

pytestmark = pytest.mark.slow

STEPS, BATCH, HIDDEN = 300, 64, 32
MODEL = models.build({"name": "mlp", "hidden_units": HIDDEN}, 10)
PATH = "hidden/kernel"


class Network(NamedTuple):
    params: dict
    mask_vars: td.MaskVars
    transform: td.MaskTransform

    def shown(self):
        return self.transform.apply(self.params, self.mask_vars, key=None, step=STEPS)[0]

    def accuracy(self, rate=0.0, granularity="weight", criterion="magnitude", scores=None):
        shown = self.shown()
        mask = td.prune_mask(shown, rate, granularity, criterion=criterion, scores=scores)
        return accuracy(td.apply_mask(shown, mask))

    def kernel(self):
        return np.asarray(self.params["hidden"]["kernel"])

    def intrinsic(self):
        return float(td.sparsity(self.params, transform=self.transform, mask_vars=self.mask_vars, step=STEPS).total)


DIGITS = load_digits()


@jax.jit
def logits(params, images):
    return MODEL.apply({"params": params}, standardize(images))


def accuracy(params):
    split = DIGITS.evaluation
    return float((logits(params, split.images).argmax(-1) == split.labels).mean())


def fit(transform, gate_rate=1.0, start=None):
    """Train in somebody else's loop: `lax.scan`, optax, gates with a learning rate of their own."""
    images, labels = jnp.asarray(DIGITS.train.images), jnp.asarray(DIGITS.train.labels)
    key = jax.random.key(0)
    params = MODEL.init(key, standardize(images[:2]))["params"]
    mask_vars = transform.init(key, params)
    if start is not None:
        params, mask_vars = start(params, mask_vars)
    faster = optax.masked(optax.scale(gate_rate), (False, True))
    optimizer = optax.chain(optax.sgd(0.05, momentum=0.9), faster)

    def update(state, step):
        params, mask_vars, opt_state = state
        rows = jax.random.choice(jax.random.fold_in(key, step), len(labels), (BATCH,))

        def loss(trained):
            params, gates = trained
            held = mask_vars._replace(gates=gates)
            with transform.context(params, held, key=key, step=step):
                seen, after = transform.apply(params, held, key=key, step=step)
                output = MODEL.apply({"params": seen}, standardize(images[rows]))
            cross_entropy = optax.softmax_cross_entropy_with_integer_labels(output, labels[rows]).mean()
            return cross_entropy + transform.penalty(params, gates, step), after.stats

        trained = (params, mask_vars.gates)
        gradient, stats = jax.grad(loss, has_aux=True)(trained)
        updates, opt_state = optimizer.update(gradient, opt_state, trained)
        params, gates = optax.apply_updates(trained, updates)
        mask_vars = td.MaskVars(gates, stats)
        return (transform.prune(params, mask_vars), mask_vars, opt_state), None

    @jax.jit
    def run(params, mask_vars):
        state = (params, mask_vars, optimizer.init((params, mask_vars.gates)))
        return jax.lax.scan(update, state, jnp.arange(STEPS))[0]

    params, mask_vars, _ = run(params, mask_vars)
    return Network(params, mask_vars, transform)


@pytest.fixture(scope="module")
def plain():
    return fit(td.identity())


def test_the_plain_network_learns_and_does_not_survive(plain):
    assert plain.accuracy() > 0.95 and plain.accuracy(0.8, "unit") < 0.75


def test_l1_makes_weights_small_and_most_of_them_removable(plain):
    network = fit(td.masks.l1(0.003, "sum"))
    assert np.abs(network.kernel()).sum() < 0.4 * np.abs(plain.kernel()).sum()
    assert network.accuracy(0.9) > plain.accuracy(0.9) + 0.02


def test_group_lasso_empties_units(plain):
    network = fit(td.masks.group_lasso(0.003))
    norms, before = (np.sort(np.linalg.norm(n.kernel(), axis=0)) for n in (network, plain))
    assert norms[8] / norms[-1] < 0.5 * before[8] / before[-1]
    assert network.accuracy(0.5, "unit") > plain.accuracy(0.5, "unit") + 0.03


@pytest.mark.parametrize(("granularity", "cost"), [("weight", 10.0), ("unit", 1.0)])
def test_l0_closes_gates_and_keeps_the_accuracy(granularity, cost):
    transform = td.masks.l0(granularity, cost=cost, initial_drop_rate=0.3, examples=1400)
    network = fit(transform, gate_rate=100.0)
    assert network.intrinsic() > 0.3 and network.accuracy() > 0.85


@pytest.mark.parametrize("local", [True, False], ids=["local", "plain"])
@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_variational_drowns_weights_in_noise_and_keeps_the_accuracy(granularity, local):
    transform = td.masks.variational(granularity, cost=1.0, warmup=100, examples=1400, local=local)
    network = fit(transform, gate_rate=10.0)
    assert network.intrinsic() > (0.4 if local else 0.15) and network.accuracy() > 0.9


@pytest.mark.parametrize(("granularity", "cost"), [("weight", 3e-3), ("unit", 1e-2)])
def test_smallify_kills_switches_and_keeps_the_accuracy(granularity, cost):
    network = fit(td.masks.smallify(granularity, cost))
    assert network.intrinsic() > 0.25 and network.accuracy() > 0.9
    dead = 1 - float(network.mask_vars.stats[PATH].alive.mean())
    assert network.intrinsic() == pytest.approx(dead)


def test_random_targets_survive_the_removal_of_their_targets(plain):
    network = fit(td.masks.random_targets("weight", 0.75, 0.66))
    scores = network.transform.scores(network.params, network.mask_vars)
    assert network.accuracy(0.75, scores=scores) > plain.accuracy(0.75, scores=scores) + 0.05


def test_ramping_survives_where_it_was_ramped_to(plain):
    network = fit(td.ramping("unit", 0.8, 0.99, stage=100))
    assert network.accuracy(0.8, "unit") > plain.accuracy(0.8, "unit") + 0.1


def test_xtreme_learns_with_three_weights_a_unit(plain):
    network = fit(td.masks.xtreme(3, stage=100))
    assert network.intrinsic() == pytest.approx(1 - 3 / 64)
    assert network.accuracy() > plain.accuracy(1 - 3 / 64) + 0.1


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_gradual_pruning_gets_there_and_keeps_the_accuracy(plain, granularity):
    network = fit(td.masks.gradual(granularity, 0.75, begin=20, end=200, interval=10))
    assert network.intrinsic() == 0.75 and not network.kernel()[network.shown()["hidden"]["kernel"] == 0].any()
    assert network.accuracy() > plain.accuracy(0.75, granularity) - 0.01
    assert network.accuracy() > 0.85


def test_a_lottery_ticket_trains_as_well_as_the_whole_network(plain):
    transform = td.masks.lottery()
    network = fit(transform)
    ticket = td.masks.draw_ticket(network.params, network.mask_vars, 0.9)
    won = fit(transform, start=lambda params, _: (transform.prune(params, ticket), ticket))
    assert won.intrinsic() == pytest.approx(0.9, abs=1e-3)
    assert won.accuracy() > plain.accuracy(0.9) + 0.03 and won.accuracy() > 0.9


def test_criteria_from_data_beat_random_removal(plain):
    batch = (jnp.asarray(DIGITS.train.images[:200]), jnp.asarray(DIGITS.train.labels[:200]))

    def forward(params, batch):
        return MODEL.apply({"params": params}, standardize(batch[0]))

    def losses(params, batch):
        return optax.softmax_cross_entropy_with_integer_labels(forward(params, batch), batch[1])

    found = {}
    for criterion in td.criteria.CRITERIA:
        scores = td.importance.importances(
            criterion,
            "weight",
            plain.params,
            losses=losses,
            forward=forward,
            batches=[batch],
            key=jax.random.key(0),
        )
        found[criterion] = plain.accuracy(0.7, scores=scores)
    assert all(found[criterion] > found["random"] + 0.1 for criterion in found if criterion != "random"), found
