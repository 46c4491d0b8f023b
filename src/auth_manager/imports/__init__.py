"""Moving in: users of another system, from a file, into accounts.

A source module turns one record of its system's export into the normal form of `record`, which is also a line
of our own export; `load` reads, checks and stores them in batches.
"""
