"""The experiments of papers, a TOML file each; :mod:`bench.harness.suites` reads them."""
