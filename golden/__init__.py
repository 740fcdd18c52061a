"""The bit-exact specification of RF8: the number format and the arithmetic on it.

Everything else in the project is checked against this package, so it imports no other folder of
the project.
"""
