"""The command lines: `NAME.py` is the console command `td-NAME` and, in a checkout, `scripts/NAME.py`.

A new one is a file here whose `main` is a `cli.command`, three lines in `scripts`, and a line in setup.cfg under
`console_scripts`. Heavy imports stand inside `main`, so that `--help` answers at once.
"""
