"""The campaign: what rsock must live through, scenario by scenario, as figures beside their targets.

`.venv/bin/python -m tests.reliability --help`. Every scenario is one file of `scenarios/`; server and load are
processes of their own. Nothing here knows how rsock works inside, and nothing here is imported by
rsock.
"""
