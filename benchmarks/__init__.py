"""The repository's own measurements: ``python -m benchmarks [NAME…] [--quick]``.

Each module with a ``run(quick) -> Outcome`` is one benchmark. The runner adds
machine, versions and commit and writes ``benchmarks/results/<name>.json``;
``python -m benchmarks.readme`` makes the table in the README from those files.
"""
