"""The module file on the host: what Slicer reads of it, its panel, and its self-test."""

import pytest

pytestmark = pytest.mark.slicer


def test_self_test_runs(session, slidesam):
    slidesam.SlideSAMTest().runTest()
