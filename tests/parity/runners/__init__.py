"""What `run_case.py` runs: one module for each family of recorded cases."""
