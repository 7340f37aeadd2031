"""Protocols: a TOML file each."""
