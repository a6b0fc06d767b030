"""The one definition of the model, and the store of weights that all of them share."""
