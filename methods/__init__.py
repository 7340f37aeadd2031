"""The methods that ship with the benchmark, one plug-in each; they come in by entry point like a stranger's."""
