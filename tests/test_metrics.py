"""The log: its TensorBoard events, and what a killed run left in it."""

import shutil
import struct

import pytest
from conftest import lines_of

from td.io.log import read
from td.train.loop import train

pytestmark = pytest.mark.filterwarnings("ignore:.*donated.*:UserWarning")


def test_tensorboard_events_hold_the_numbers_of_the_log(finished):
    from tensorboardX.proto.event_pb2 import Event

    read_back = []
    for path in (finished[1] / "events").iterdir():
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            read_back.append(Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    losses = {e.step: e.summary.value[0].simple_value for e in read_back if "loss" in [v.tag for v in e.summary.value]}
    assert losses == {
        line["step"]: pytest.approx(line["loss"], rel=1e-6) for line in read(finished[1]) if "loss" in line
    }


def test_the_log_drops_what_a_killed_run_wrote_after_its_checkpoint(finished, tmp_path, one_device):
    config, folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "result.json").unlink()
    shutil.rmtree(copy / "checkpoints" / "12")
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "loss"')
    train(config, copy, one_device)
    assert [line["step"] for line in lines_of(copy / "metrics.jsonl")] == [line["step"] for line in read(folder)]
