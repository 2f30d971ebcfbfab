"""Probes of what a model helps with and says, and of what it must still be able to say."""
