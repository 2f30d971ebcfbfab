"""Measuring and judging. Never edits, never publishes."""
