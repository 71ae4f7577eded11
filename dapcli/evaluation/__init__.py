"""Evaluation: clean clips are degraded by a protocol, restored by several methods, and compared with what they were.

A protocol is one class and one line in ``PROTOCOLS``, a method a subclass of ``Method``. Results lie in a folder, from
which an interrupted evaluation goes on.
"""
