"""What all tests share: shapes checked at every call of ours, hypothesis without a clock, tiny generated clips."""

from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

TOP = Path(__file__).parent.parent
SHAPED = [
    path for path in sorted((TOP / "taghead").rglob("*.py")) if "from jaxtyping import" in path.read_text("utf-8")
]

# Before anything of ours is loaded, hence no import of ours on top. Only files with shapes: beartype cannot read the
# `Self` of other files method by method. What tests start as processes of their own runs as a user's does: unchecked.
install_import_hook(
    [".".join(path.relative_to(TOP).with_suffix("").parts) for path in SHAPED],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",  # an int is a float
)

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def tiny_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 4 generated classes of 20 clips (64 train, 4 val, 12 test). Read it only."""
    from taghead.data.synthetic import make_dataset

    return make_dataset(tmp_path_factory.mktemp("clips") / "tiny", size="tiny", kind="fine", workers=2)
