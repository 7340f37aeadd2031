"""``python -m bench``: the same command line as the console script ``bench``."""

from bench.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
