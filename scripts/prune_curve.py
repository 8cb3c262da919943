"""The command `td-prune-curve`: see td/commands/prune_curve.py."""

from td.commands.prune_curve import main

if __name__ == "__main__":
    main()
