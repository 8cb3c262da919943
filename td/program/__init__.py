"""A function as one flat list of equations on numbered values, for the structure of a network and its compaction."""
