"""The campaign: what rsock must live through, row by row, as figures beside their targets.

`.venv/bin/python -m tests.campaign --help`. Every row is one file of `rows/`; server and load are
processes of their own. Nothing here knows how rsock works inside, and nothing here is imported by
rsock.
"""
