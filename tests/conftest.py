"""What several test files share: tiny generated clips, made once a session."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 4 generated classes of 20 clips (64 train, 4 val, 12 test). Read it only."""
    from taghead.data.synthetic import make_dataset

    return make_dataset(tmp_path_factory.mktemp("clips") / "tiny", size="tiny", kind="fine", workers=2)
