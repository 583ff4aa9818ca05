"""close-enrich, facing out: RQ workers that call Close's field enrichment."""
