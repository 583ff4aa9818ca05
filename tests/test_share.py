"""How many places bulk work leaves free."""

from __future__ import annotations

import pytest

from workers.share import kept_for_live


@pytest.mark.parametrize(("places", "kept"), [(1, 0), (2, 1), (9, 1), (10, 1), (25, 2), (100, 10)])
def test_a_tenth_of_the_places_is_kept_and_never_all_of_them(places, kept):
    assert kept_for_live(places) == kept
