"""The reliability suite: loads and faults that rsock must survive.

Each scenario gives figures beside their targets: `.venv/bin/python -m tests.reliability --help`.
Every scenario is one file of `scenarios/`; server and load are separate processes. Nothing here
knows how rsock works inside, and rsock imports nothing from here.
"""
