"""Heads put under other graphs; what follows from it is tested with the surface."""

import pytest
from stored import Results

from analysis.frame_logits import load
from studies.catalog import STAGES
from taghead.errors import InputError


def test_the_command_that_keeps_what_lacks_names_it_once(results: Results) -> None:
    plan = results.plan(STAGES).model_copy(update={"keep": ("embeddings", "weights", "frame_means")})
    with pytest.raises(InputError) as error:
        load(results.root, plan)
    assert str(error.value).count("--keep weights") == str(error.value).count("--keep frame_means") == 1
