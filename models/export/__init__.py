"""Export of a trained network as a folder: weights without code, a description, a model card, and ONNX."""
