"""Says why and ends with exit code 3."""

import sys

print("reading the weights")
print("the weights are missing", file=sys.stderr)
sys.exit(3)
