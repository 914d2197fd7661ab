"""Networks in ONNX files (https://onnx.ai): read as layers, and written from them."""
