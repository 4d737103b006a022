"""The ``report`` verb: run folders as tables, figures, tests and one page; a module a section."""
