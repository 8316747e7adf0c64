"""Reading confidence out of a model: logits in, option probabilities out."""
