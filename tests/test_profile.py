"""A recording of a few steps is left where it was asked for."""

import jax
import pytest

from td.execution import Execution
from td.train import train

pytestmark = pytest.mark.filterwarnings("ignore:.*donated.*:UserWarning")


@pytest.mark.slow
def test_a_profile_is_left_where_it_was_asked_for(tiny_config, tmp_path):
    train(tiny_config, tmp_path, Execution(jax.devices()[:1], profile=True))
    assert list((tmp_path / "profile").rglob("perfetto_trace.json.gz"))
