"""Programs that call this package as a user's do."""

SEARCH = """
import nas

run = nas.search(
    "tiny.yaml", objectives=["top1", "macs"], epochs=2, trials=12, finalists=0, seed=3, run="r", quiet=True,
    settings={"train.batch_size": 256, "train.lr": 0.01, "train.warmup_epochs": 0, "evaluate.final_rounds": 3},
)
"""
