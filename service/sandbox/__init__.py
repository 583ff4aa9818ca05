"""A faithful local Close, for the demo and the tests."""
