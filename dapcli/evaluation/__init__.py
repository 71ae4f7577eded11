"""Evaluation: clean clips are damaged by a protocol, restored by several methods, and compared with what they were.

A protocol is one class and one line in ``PROTOCOLS``, a method one class with the members of ``Method``. What comes
out lies in a folder, from which an interrupted evaluation goes on.
"""
