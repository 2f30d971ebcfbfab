"""Probes of what a model implies about groups of people."""
