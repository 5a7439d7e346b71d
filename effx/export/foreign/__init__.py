"""Engines made elsewhere: graphs by Optimum, Olive, NNCF, torch.onnx, ... become engine folders.

    location    which files: the graph, its weights, config.json, the tokenizer
    onnx_graph, openvino_graph    what a graph takes, gives and computes
    interface   which input and output is which, and which output is which label
    importing   check them on rows, and write the engine

Needs no PyTorch, unless the engine is compared with a checkpoint.
"""
