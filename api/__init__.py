"""The HTTP side: parse, authorise, one call, answer."""
