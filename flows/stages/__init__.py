"""The pipeline's six stages and a comparison's two: params.yaml unpacked for plain functions.

A stage writes its outputs whole or not at all, below the folders of a `Layout`, and returns a summary
of a few lines for people. They are imported one by one: each has heavy imports of its own.
"""

STAGES = ("prepare", "score", "cluster", "train", "evaluate", "report")
COMPARISON_STAGES = ("base", "cell")
