"""The command `td-train-population`: see td/commands/train_population.py."""

from td.commands.train_population import main

if __name__ == "__main__":
    main()
