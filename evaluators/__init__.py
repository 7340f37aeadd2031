"""The evaluators that ship with the benchmark, and their protocols; plug-ins like any other."""
