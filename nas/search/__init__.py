"""The search: Optuna proposes architectures, workers measure them, the loop keeps the books."""
