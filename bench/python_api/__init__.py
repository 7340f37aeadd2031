"""The Python API: ``bench.evaluate`` and ``bench.run``; :mod:`bench` loads it on first use."""
