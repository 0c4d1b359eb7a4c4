"""`python -m tests.benches [NAME ...]`: the benchmarks of this machine; those of training and of a cluster are scripts of their own."""

from tests.benches.bench import main

main()
