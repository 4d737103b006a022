"""What a model is asked and how its answer is read: tasks, prompts and the answer format.

A task is a value (:class:`recap.tasks.task.Task`); :mod:`recap.tasks.library` makes one from a YAML
file.
"""
