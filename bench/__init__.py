"""Measured, repeatable performance runs; every figure in the documents comes from here."""
