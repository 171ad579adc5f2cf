"""Threads wait briefly, unless somebody has said otherwise."""

import os
import subprocess
import sys

import pytest

from SlideSAMLib.compute.waiting import SHORT, wait_briefly


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, SHORT),
        ({"GOMP_SPINCOUNT": "7"}, {**SHORT, "GOMP_SPINCOUNT": "7"}),
        ({"KMP_BLOCKTIME": "infinite"}, {**SHORT, "KMP_BLOCKTIME": "infinite"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_what_the_environment_says_is_left(before, after):
    environment = dict(before)
    wait_briefly(environment)
    assert environment == after


def test_it_is_said_before_torch_is_loaded():
    code = (
        "import os, sys, SlideSAMLib\n"
        "assert 'torch' not in sys.modules\n"
        f"assert {{name: os.environ.get(name) for name in {list(SHORT)!r}}} == {SHORT!r}\n"
    )
    unsaid = {*SHORT, "OMP_WAIT_POLICY"}
    environment = {name: value for name, value in os.environ.items() if name not in unsaid}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
