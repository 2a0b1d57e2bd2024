"""Grading of responses: which answer a response gives, and whether it is right. See docs/grading.md.

Imports neither torch, ray nor verl, and of data_prep and recipe.paec nothing, so that both of them can use it.
"""
