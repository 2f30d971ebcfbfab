"""Probes of what earlier edits about safety and bias taught, asked again whenever the line moves on."""
