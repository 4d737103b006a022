"""Tasks, their prompts and the format of answers.

A task is a value (:class:`recap.tasks.task.Task`); :mod:`recap.tasks.library` makes one from a YAML
file.
"""
