"""What the benchmarks are played on: PostgreSQL, a broker with people, floors, and a load.

Each part that takes CPU of its own runs as a process of its own, so that what is
measured is one process and nothing else. The scripts beside this package import it
as `stage`, since Python puts a script's own directory first on its path.
"""
