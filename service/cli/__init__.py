"""The command line; also the composition root, the one place that joins `service` and `workers`."""
