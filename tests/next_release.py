"""`close-enrich` as a later release would be: the same code, whose entries have the next version.

`python -m tests.next_release web` stands for that release's `close-enrich web`.
"""

from __future__ import annotations

from service import enrichment

# before any module takes it over from there
enrichment.ENTRY_VERSION += 1

if __name__ == "__main__":
    from service.cli.main import main

    main()
