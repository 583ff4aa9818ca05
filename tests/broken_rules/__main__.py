"""Write the words for all broken rules files anew: `python -m tests.broken_rules`."""

from __future__ import annotations

from tests.broken_rules import CASES, words_for

for case in CASES:
    case.with_suffix(".txt").write_text(words_for(case), encoding="utf-8")
print(f"{len(CASES)} written")  # noqa: T201 - for whoever runs it
