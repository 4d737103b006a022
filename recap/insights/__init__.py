"""The ``insights`` verb: sessions, alliance, the counselor study, cards; a module an action."""
