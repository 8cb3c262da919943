"""Targeted dropout of coupled groups in a Keras 3 model on JAX, pruned and compacted: python examples/keras_cnn.py."""

import os

import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import td

os.environ["KERAS_BACKEND"] = "jax"  # read when Keras is imported

import keras
from keras import layers


def build():
    inputs = keras.Input((8, 8, 1))
    hidden = layers.Conv2D(32, 3, padding="same", activation="relu")(inputs)
    for _ in range(2):
        branch = layers.Conv2D(64, 3, padding="same", use_bias=False)(hidden)
        branch = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(branch))
        hidden = layers.MaxPooling2D()(layers.add([hidden, layers.Conv2D(32, 3, padding="same")(branch)]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(hidden)))


def main(steps: int = 400) -> float:
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    keras.utils.set_random_seed(0)
    model = build()
    params = {v.path: v.value for v in model.trainable_variables}
    state = {v.path: v.value for v in model.non_trainable_variables}  # of BatchNorm
    running = [*state]  # in Keras's order; jax sorts dicts

    def network(params, state, images, training=False):
        trained, rest = [params[v.path] for v in model.trainable_variables], [state[path] for path in running]
        logits, updated = model.stateless_call(trained, rest, images, training)
        return logits, dict(zip(running, updated, strict=True))

    structure = td.trace(lambda params, x: network(params, state, x)[0], params, images[:2])
    print(structure)
    transform, optimizer = td.targeted("group", 0.5, drop_rate=0.5, kernels=structure), optax.adam(3e-3)
    mask_vars, opt_state = transform.init(jax.random.key(1), params), optimizer.init(params)

    @jax.jit
    def update(params, state, opt_state, step, images, labels):
        def loss(params):
            masked, _ = transform.apply(params, mask_vars, key=jax.random.key(2), step=step)
            logits, updated = network(masked, state, images, training=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated

        (_, state), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(params, updates), state, opt_state

    batches = np.random.default_rng(0).choice(range(360, len(labels)), (steps, 128))
    for step, rows in enumerate(batches):
        params, state, opt_state = update(params, state, opt_state, step, images[rows], labels[rows])

    acc = jax.jit(lambda params, state: (network(params, state, images[:360])[0].argmax(-1) == labels[:360]).mean())
    pruned = td.apply_mask(params, td.prune_mask(params, 0.5, "group", kernels=structure))
    after = td.recalibrate(lambda state, batch: network(pruned, state, batch, True)[1], state, images[batches[:20]])
    print(f"accuracy {acc(params, state):.1%}, pruned {acc(pruned, state):.1%}, recalibrated {acc(pruned, after):.1%}")

    small = td.compact(lambda variables, x: network(*variables, x)[0], (pruned, after), images[:2])
    print(small.summary)
    zeros = float(td.sparsity(pruned, kernels=structure).total)
    for variable in model.variables:  # copies, since Keras donates its buffers
        variable.assign(np.asarray((pruned | after)[variable.path]))
    ours, keras_own = small.apply(small.params, images[:360]), model.predict(images[:360], verbose=0)
    np.testing.assert_allclose(ours, keras_own, atol=1e-4)
    print(f"{zeros:.0%} of the weights are zero; the model and the compacted network agree")
    return zeros


if __name__ == "__main__":
    main()
