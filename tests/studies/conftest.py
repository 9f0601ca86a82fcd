import importlib.util
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("fakes", Path(__file__).with_name("fakes.py"))
sys.modules["fakes"] = importlib.util.module_from_spec(_SPEC)  # importlib mode puts no folder on the path
_SPEC.loader.exec_module(sys.modules["fakes"])


@pytest.fixture
def root(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def epochs(tmp_path):
    """The epochs that were trained, as (trial id, epoch), in order."""

    def read():
        path = tmp_path / "epochs.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    return read
