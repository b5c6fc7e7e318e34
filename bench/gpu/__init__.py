"""What the vLLM engine gives on GPUs, alone and with the whole service around it, in one run: `python -m bench.gpu`."""
