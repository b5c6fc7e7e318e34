"""Measured, repeatable performance runs; every figure in the README comes from here."""
