"""The machine underneath: files, processes, secrets and what may be shown of them.

Every layer above may come in.
"""
