"""The command `td-search`: see td/commands/search.py."""

from td.commands.search import main

if __name__ == "__main__":
    main()
