"""Objectives: how a network's output explains a recording, and what that costs; the papers' and dap's own.

To add one, write a class with the members of :class:`~dapcli.fit.Objective`, and give it a line in the ``estimators``
of its task in :data:`dapcli.tasks.TASKS`. What it is constructed with is the same for all objectives of a task.
"""
