"""What the scenarios of the benchmarks share; it must never know what a scenario measures."""
