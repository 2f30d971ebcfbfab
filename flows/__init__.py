"""The order of things: flows, settings and the command line."""
