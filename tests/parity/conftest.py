"""The scripts of this folder run on their own; only `test_*.py` is for pytest, doctests included."""

collect_ignore_glob = ["runners/*", "run_case.py", "compare.py", "seeding.py"]
