"""Running sweeps: which trial is next, running it, ending it early, comparing all.

The state of a sweep is its folder, and nothing else: what comes next is a pure function of the
trials that lie there, so a driver that was killed goes on without losing or repeating one.
"""
