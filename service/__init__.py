"""close-enrich, facing in: webhooks, rules, planning, shared state, command line."""
