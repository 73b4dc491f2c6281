"""Training studies: networks trained under each selection, resumable, in one file of results.

>>> from kinkcheck.study import spec
>>> len(spec.shipped("smoke").trials())
4
"""
