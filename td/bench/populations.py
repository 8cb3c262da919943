"""Many networks in one program against the same networks one by one, a step of each."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from td.bench.networks import Measured, Stepper, load_config, prepare
from td.evaluate.timing import Timing, side_by_side
from td.train.devices import AXIS, Execution, make_mesh
from td.train.population import Member, make_population_step

NETWORKS = {
    "MLP": Measured("mnist_mlp", 128, 10, "mask=targeted"),
    "small ResNet": Measured("digits_resnet", 32, 10, "mask=targeted"),
}
SIZE = 8


def _in_one_program(members: list[Member], batch: Any) -> Any:
    sharding = NamedSharding(make_mesh(Execution(jax.devices()[:1]), [SIZE]), PartitionSpec(AXIS))
    step = make_population_step(members, sharding)
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(member.state for member in members))
    batches = jax.device_put(jax.tree.map(lambda leaf: np.stack([leaf] * SIZE), batch), sharding)
    kept = [jax.device_put(states, sharding)]

    def call() -> Any:
        kept[0], metrics = step(kept[0], batches)
        return metrics["loss"]

    return call


def measure(name: str, network: Measured, repeats: int, baselines: bool) -> tuple[str, list[Timing]]:
    """Measure a small network."""
    del baselines
    members = []
    for seed in range(SIZE):
        run, state, batch = prepare(network, load_config(network, "", {"seed": seed, "mask.drop_rate": 0.1 * seed}))
        members.append(Member(Path(), run, state))
    stacked = _in_one_program(members, batch)
    steppers = [Stepper(member.run, member.state, batch) for member in members]
    cases = {f"{SIZE} one by one": lambda: [stepper() for stepper in steppers], f"{SIZE} in one program": stacked}
    return f"{name}, batch {network.batch}", side_by_side(cases, repeats, name)
