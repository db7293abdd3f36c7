"""What `internimage bench` and the benchmarks measure with: models at hand, clocks."""
