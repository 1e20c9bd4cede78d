"""What every row of the benchmarks shares; it must never know what a row measures."""
