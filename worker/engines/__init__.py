"""The only folder that imports an inference library; each engine is one file behind one Protocol."""
