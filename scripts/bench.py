"""The command `td-bench`: see td/commands/bench.py."""

from td.commands.bench import main

if __name__ == "__main__":
    main()
