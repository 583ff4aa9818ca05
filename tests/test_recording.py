"""The README's terminal recording is what a new user sees."""

from __future__ import annotations

import pytest
from recording import block, record, written


@pytest.mark.slow
def test_the_recording_in_the_readme_is_what_the_screen_shows():
    assert written() == block(record()), "python -m tests.recording writes it anew"
