"""The experiments of papers, a TOML file each; :mod:`bench.planning.suites` reads them."""
