"""The command `td-report`: see td/commands/report.py."""

from td.commands.report import main

if __name__ == "__main__":
    main()
